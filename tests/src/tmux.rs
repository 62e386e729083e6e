//! A real terminal: a program in a window of tmux, driven by keys and read as a person reads it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A tmux server of its own with one window. Dropping it ends the server and what runs in it.
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// Runs a shell script in a window of this size; the window stays when the script has ended.
    #[track_caller]
    pub fn start(script: &Path, columns: u16, rows: u16) -> Self {
        let name = script.to_string_lossy().replace(['/', '.'], "_");
        let tmux = Self {
            socket: format!("memtrace-{}-{name}", std::process::id()),
        };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // `cat` waits for as long as the window is there.
        let command = format!("sh '{}'; exec cat", script.display());
        tmux.run(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            &command,
        ]);
        tmux
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(
            output.status.success(),
            "tmux {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn output(&self, args: &[&str]) -> Output {
        Command::new("tmux")
            .args(["-u", "-L", &self.socket])
            .args(args)
            .output()
            .expect("tmux is not installed: cargo xtask setup")
    }

    /// What is on the screen.
    #[track_caller]
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted; it, or a panic that shows it at the deadline.
    #[track_caller]
    pub fn wait(&self, until: Instant, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(
                Instant::now() < until,
                "waiting for {what}, the screen is:\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses keys by tmux's names for them: `Enter`, `Escape`, `Down`, or characters.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        let mut args = vec!["send-keys"];
        args.extend(keys);
        self.run(&args);
    }

    /// Types text as it is.
    #[track_caller]
    pub fn type_text(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
    }

    /// Gives the window another size.
    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.run(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// Waits until the terminal is taken over, or is not any more.
    #[track_caller]
    pub fn wait_taken_over(&self, until: Instant, wanted: bool) {
        while self.is_taken_over() != wanted {
            assert!(
                Instant::now() < until,
                "waiting for taken over = {wanted}, the screen is:\n{}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// True when the program shows its alternate screen or hides the cursor.
    #[track_caller]
    pub fn is_taken_over(&self) -> bool {
        let flags = self.run(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]);
        flags.trim() != "01"
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.output(&["kill-server"]);
    }
}
