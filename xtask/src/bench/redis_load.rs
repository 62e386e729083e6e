//! A redis-server that never waits for its client, and whose client never waits for it: commands are there
//! before it asks for them, and nobody is to be woken when it answers. What falling asleep and waking up take
//! differs from moment to moment by more than what is to be measured.
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::redis::Redis;

/// Keys that are there before anything is measured. The table of keys is made for them at once and doubles at
/// 2^22, which no course reaches: while the server moves its keys to a new table each command costs half as
/// much again.
const KEYS: u64 = 2_200_000;
/// Of them so many are read, again and again: caches hold them.
const READ: u64 = 10_000;
/// Bytes of a value.
const VALUE: usize = 64;
/// How long the server may say nothing.
const DEADLINE: Duration = Duration::from_secs(20);
/// A socket holds more than the server does in this time.
const NAP: Duration = Duration::from_micros(500);

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
        stream.set_nonblocking(true)?;
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
        self.exchange(commands.as_bytes(), answered)
    }

    /// Writes commands and reads so many bytes of answers: a wrong one is longer or shorter.
    fn exchange(&mut self, mut commands: &[u8], mut answers: usize) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut moved = Instant::now();
        while answers > 0 {
            let mut idle = true;
            if let Some(count) = ready(self.stream.write(commands))? {
                commands = commands.get(count..).unwrap_or_default();
                idle = count == 0;
            }
            if let Some(count) = ready(self.stream.read(&mut buffer))? {
                ensure!(
                    count > 0 && count <= answers,
                    "redis-server answers otherwise"
                );
                answers -= count;
                idle = false;
            }
            if !idle {
                moved = Instant::now();
                continue;
            }
            ensure!(moved.elapsed() < DEADLINE, "redis-server says nothing");
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    /// A key that is there (xorshift).
    fn chosen(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % READ
    }
}

/// How many bytes went through; nothing when none can now.
fn ready(result: io::Result<usize>) -> Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("redis-server"),
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
