//! A chain of callers whose every frame, file and line must be in the report: `@name` marks the line
//! of the call made in `name`.
use std::hint::black_box;

use truth_programs::{Site, end, ready};

static LEAK: Site = Site::new("rust_leak");

#[unsafe(no_mangle)]
#[inline(never)]
fn rust_leak(n: usize) -> *mut u8 {
    let v = Vec::with_capacity(n); // @rust_leak
    LEAK.took(v.capacity());
    black_box(v.leak().as_mut_ptr())
}

mod service {
    use std::hint::black_box;

    pub struct Cache {
        pub entries: usize,
    }

    impl Cache {
        #[inline(always)]
        pub fn inlined_insert(&mut self, n: usize) {
            black_box(super::rust_leak(n)); // @inlined_insert
            self.entries += 1;
        }

        #[inline(never)]
        pub fn insert(&mut self, n: usize) {
            self.inlined_insert(n + 1); // @insert
            black_box(&self.entries);
        }
    }
}

trait Worker {
    fn work(&mut self, rounds: usize);
}

impl Worker for service::Cache {
    #[inline(never)]
    fn work(&mut self, rounds: usize) {
        for i in 0..rounds {
            self.insert(i); // @work
            black_box(&self.entries);
        }
    }
}

#[inline(never)]
fn drive(worker: &mut dyn Worker) {
    worker.work(100); // @drive
    black_box(&worker);
}

fn main() {
    ready();
    let mut cache = service::Cache { entries: 0 };
    drive(black_box(&mut cache)); // @main
    black_box(&cache.entries);
    end(&[&LEAK]);
}
