//! A redis-server that never waits for its client: commands are there before it asks for them, so that
//! its CPU time is spent on them and not on waking up, which differs from run to run.
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::redis::Redis;

/// Keys that are there before anything is measured: the table of keys, made for them at once, has room
/// for as many again (it doubles at 2^21).
const KEYS: u64 = 1_200_000;
/// Bytes of a value.
const VALUE: usize = 64;
/// How long the server may say nothing.
const DEADLINE: Duration = Duration::from_secs(20);

/// A connection that has sent `new` keys so far.
pub struct Load {
    stream: UnixStream,
    new: u64,
    /// State of the generator that chooses which keys are read.
    random: u64,
}

impl Load {
    /// Fills the server, waits until its table of keys has its size, and connects.
    pub fn start(redis: &Redis) -> Result<Self> {
        redis.say(&["debug", "populate", &KEYS.to_string(), "key", "64"])?;
        let begun = Instant::now();
        while redis.say(&["debug", "htstats", "0"])?.contains("rehashing") {
            ensure!(begun.elapsed() < DEADLINE, "redis-server rehashes for ever");
            std::thread::sleep(Duration::from_millis(100));
        }
        let stream = UnixStream::connect(redis.socket())
            .with_context(|| format!("{}: no connection", redis.socket().display()))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self {
            stream,
            new: 0,
            random: 0x9E37_79B9_7F4A_7C15,
        })
    }

    /// `requests` commands: each `every`-th a SET of a new key, the others GETs of keys that are there.
    pub fn serve(&mut self, requests: u32, every: u32) -> Result<()> {
        let mut commands = String::new();
        let mut answered = 0;
        for number in 0..requests {
            if number % every == 0 {
                self.new += 1;
                set(&mut commands, KEYS + self.new);
                answered += "+OK\r\n".len();
            } else {
                get(&mut commands, self.chosen());
                answered += "$64\r\n\r\n".len() + VALUE;
            }
        }
        let mut writing = self.stream.try_clone()?;
        std::thread::scope(|scope| {
            let written = scope.spawn(move || writing.write_all(commands.as_bytes()));
            let read = self.read(answered);
            written
                .join()
                .map_err(|_| anyhow::anyhow!("the writer died"))??;
            read
        })
    }

    /// Answers of a known length together: a wrong one is longer or shorter.
    fn read(&mut self, bytes: usize) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let count = self
                .stream
                .read(&mut buffer)
                .context("redis-server's answers")?;
            ensure!(count > 0 && count <= left, "redis-server answers otherwise");
            left -= count;
        }
        Ok(())
    }

    /// A key that is there (xorshift).
    fn chosen(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % KEYS
    }
}

fn get(commands: &mut String, key: u64) {
    let key = format!("key:{key}");
    let _ = write!(commands, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
}

fn set(commands: &mut String, key: u64) {
    let key = format!("key:{key}");
    let _ = write!(
        commands,
        "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE}\r\n{:x<VALUE$}\r\n",
        key.len(),
        ""
    );
}
