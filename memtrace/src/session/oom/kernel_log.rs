//! What the kernel's log says of an OOM kill: the group whose limit was met, which the tracepoint
//! does not tell, and the figures, which older kernels' tracepoint does not have.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use crate::report::incident::Figures;

/// Lines read at once at most: a log that is flooded must not hold the session up.
const MAX_LINES: usize = 2048;
/// Longer records the kernel does not write.
const RECORD_BYTES: usize = 8192;

/// The log from where the session began.
pub(super) struct KernelLog(Option<File>);

/// Why memory ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    /// A memory cgroup's limit, by its path.
    Group(String),
    /// The machine's own memory, or that of some of its nodes.
    Machine,
}

/// What one line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    /// Why, and who was chosen.
    Cause { pid: u32, domain: Domain },
    /// Who was killed, with figures.
    Killed { pid: u32, figures: Figures },
}

impl KernelLog {
    /// Nothing is read where the log may not be.
    pub fn open() -> Self {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg");
        Self(opened.ok().and_then(|mut file| {
            file.seek(SeekFrom::End(0)).ok()?;
            Some(file)
        }))
    }

    /// The lines about OOM kills since the last call.
    pub fn read(&mut self) -> Vec<Line> {
        let mut found = Vec::new();
        let Some(file) = &mut self.0 else {
            return found;
        };
        let mut record = vec![0; RECORD_BYTES];
        for _ in 0..MAX_LINES {
            match file.read(&mut record) {
                Ok(length @ 1..) => {
                    let record = record.get(..length).unwrap_or_default();
                    found.extend(parse(&String::from_utf8_lossy(record)));
                }
                // Records were overwritten before they could be read.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                _ => break,
            }
        }
        found
    }
}

/// One record: `level,sequence,time,flags;text`, then lines of the kernel's own.
fn parse(record: &str) -> Option<Line> {
    let (head, rest) = record.split_once(';')?;
    // Facility 0 is the kernel: anyone who may write there could tell tales.
    let level: u32 = head.split(',').next()?.parse().ok()?;
    if level >> 3 != 0 {
        return None;
    }
    let text = rest.lines().next()?;
    cause(text).or_else(|| killed(text))
}

/// `oom-kill:constraint=…,oom_memcg=/a,task_memcg=/a/b,task=NAME,pid=1,uid=0`. Names are the
/// target's own and may hold anything; numbers are looked for from the end.
fn cause(text: &str) -> Option<Line> {
    let text = text.strip_prefix("oom-kill:constraint=")?;
    let (before_uid, _) = text.rsplit_once(",uid=")?;
    let pid = before_uid.rsplit_once(",pid=")?.1.parse().ok()?;
    let domain = match text.split_once(",oom_memcg=") {
        Some((_, rest)) => Domain::Group(rest.split_once(",task_memcg=")?.0.to_owned()),
        None => Domain::Machine,
    };
    Some(Line::Cause { pid, domain })
}

/// `…: Killed process 1 (NAME) total-vm:4kB, anon-rss:4kB, …, UID:0 pgtables:4kB oom_score_adj:0`.
fn killed(text: &str) -> Option<Line> {
    let (_, rest) = text.split_once("Killed process ")?;
    let pid = rest.split(' ').next()?.parse().ok()?;
    let (_, figures) = rest.rsplit_once(") total-vm:")?;
    let number = |name: &str| -> Option<&str> {
        let from = match name {
            "total-vm:" => figures,
            _ => figures.split_once(name)?.1,
        };
        Some(from.split([' ', ',']).next()?.trim_end_matches("kB"))
    };
    let bytes = |name| number(name)?.parse::<u64>().ok()?.checked_mul(1024);
    Some(Line::Killed {
        pid,
        figures: Figures {
            total_vm_bytes: bytes("total-vm:"),
            anon_rss_bytes: bytes("anon-rss:"),
            file_rss_bytes: bytes("file-rss:"),
            shmem_rss_bytes: bytes("shmem-rss:"),
            page_table_bytes: bytes("pgtables:"),
            uid: number("UID:").and_then(|text| text.parse().ok()),
            oom_score_adj: number("oom_score_adj:").and_then(|text| text.parse().ok()),
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The group whose limit was met and the victim's figures are found.
    #[test]
    fn kernel_lines() {
        let cause = "6,901,123,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,\
             mems_allowed=0,oom_memcg=/pod,task_memcg=/pod/app,task=x,pid=9,pid=77,uid=0\n";
        assert_eq!(
            parse(cause),
            Some(Line::Cause {
                pid: 77,
                domain: Domain::Group("/pod".into())
            })
        );
        let global = "6,1,1,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,\
             mems_allowed=0,global_oom,task_memcg=/app,task=x,pid=77,uid=0";
        assert_eq!(
            parse(global),
            Some(Line::Cause {
                pid: 77,
                domain: Domain::Machine
            })
        );
        let killed = "3,902,123,-;Memory cgroup out of memory: Killed process 77 (a) total-vm:1kB) \
             total-vm:70000kB, anon-rss:64000kB, file-rss:1200kB, shmem-rss:0kB, UID:1000 \
             pgtables:180kB oom_score_adj:-5";
        let Some(Line::Killed { pid, figures }) = parse(killed) else {
            panic!("not understood")
        };
        assert_eq!(pid, 77);
        assert_eq!(figures.total_vm_bytes, Some(70_000 * 1024));
        assert_eq!(figures.anon_rss_bytes, Some(64_000 * 1024));
        assert_eq!((figures.uid, figures.oom_score_adj), (Some(1000), Some(-5)));
    }

    /// What a program wrote into the log, and other lines, are nothing.
    #[test]
    fn other_lines() {
        let forged = "12,1,1,-;oom-kill:constraint=CONSTRAINT_NONE,task=x,pid=1,uid=0";
        for text in [
            forged,
            "6,1,1,-;eth0: link up",
            "",
            "6;oom-kill:constraint=,pid=x,uid=",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        /// No record makes the parser panic.
        #[test]
        fn hostile(text in "(6,1;|oom-kill:constraint=|,oom_memcg=|,task_memcg=|,pid=|,uid=|Killed process |\\) total-vm:|[0-9]{1,25}|kB|, anon-rss:|é| ){0,14}") {
            let _ = parse(&text);
            let _ = parse(&format!("6,1,1,-;{text}"));
        }
    }
}
