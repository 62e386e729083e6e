//! A headless Chromium, driven by its own driver over WebDriver: what a person with a browser sees.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Running, deadline};

/// How WebDriver writes the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. Dropping it ends it.
pub struct Browser {
    port: u16,
    session: String,
    _driver: Running,
}

/// An element of the page.
pub struct Element(String);

impl Browser {
    /// Starts one with a profile of its own below `folder`. Panics when Chromium is not installed.
    #[track_caller]
    pub fn start(folder: &Path) -> Self {
        let mut driver = Running::spawn(Command::new("chromedriver").arg("--port=0"));
        let started = "was started successfully on port ";
        let line = driver.stdout_line(deadline(60), "chromedriver's port", |line| {
            line.contains(started)
        });
        let (_, port) = line.split_once(started).unwrap();
        let port = port.trim_end_matches('.').parse().unwrap();
        let mut browser = Self {
            port,
            session: String::new(),
            _driver: driver,
        };
        let profile = format!("--user-data-dir={}", folder.display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // It ends with its driver, however that ends.
            "--remote-debugging-pipe",
            "--window-size=1280,900",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = browser.request("POST", "/session", &wanted);
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Opens a file and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, file: &Path) {
        let url = format!("file://{}", file.display());
        self.command("POST", "/url", &json!({"url": url}));
    }

    /// Width and height of the window.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height});
        self.command("POST", "/window/rect", &size);
    }

    /// What a function body returns in the page.
    #[track_caller]
    pub fn script(&self, body: &str) -> Value {
        let script = json!({"script": body, "args": []});
        self.command("POST", "/execute/sync", &script)
    }

    /// Waits until a function body returns true in the page.
    #[track_caller]
    pub fn wait_for(&self, body: &str) {
        let until = deadline(20);
        while self.script(body) != Value::Bool(true) {
            assert!(Instant::now() < until, "never true: {body}");
        }
    }

    /// The first element that a CSS selector finds.
    #[track_caller]
    pub fn find(&self, selector: &str) -> Element {
        let how = json!({"using": "css selector", "value": selector});
        let found = self.command("POST", "/element", &how);
        let id = found[ELEMENT].as_str();
        Element(
            id.unwrap_or_else(|| panic!("no {selector}: {found}"))
                .to_owned(),
        )
    }

    /// Clicks the first element of a selector, where a person would.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let Element(id) = self.find(selector);
        self.command("POST", &format!("/element/{id}/click"), &json!({}));
    }

    /// Types into the first element of a selector.
    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        let Element(id) = self.find(selector);
        let keys = json!({"text": text});
        self.command("POST", &format!("/element/{id}/value"), &keys);
    }

    /// The text of the first element of a selector, as it is seen.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let Element(id) = self.find(selector);
        let text = self.command("GET", &format!("/element/{id}/text"), &Value::Null);
        text.as_str().unwrap().to_owned()
    }

    /// Answers the question that the page asks.
    #[track_caller]
    pub fn answer(&self, text: &str) {
        self.command("POST", "/alert/text", &json!({"text": text}));
        self.command("POST", "/alert/accept", &json!({}));
    }

    /// Everything the page wrote to the console since the last call, errors among it.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().unwrap().iter();
        lines
            .map(|line| format!("{} {}", line["level"], line["message"]))
            .collect()
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.request(method, &format!("/session/{}{path}", self.session), body)
    }

    #[track_caller]
    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.try_request(method, path, body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let error = &answer["value"]["error"];
        assert!(error.is_null(), "{method} {path}: {}", answer["value"]);
        answer["value"].clone()
    }

    fn try_request(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(told)?;
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).map_err(told)?;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).map_err(told)?;
        stream.write_all(body.as_bytes()).map_err(told)?;
        // The driver keeps the connection open: what it announces is all there is to read.
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).map_err(told)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut json = vec![0; length];
        answer.read_exact(&mut json).map_err(told)?;
        let json = &String::from_utf8_lossy(&json);
        serde_json::from_str(json).map_err(|error| format!("{error}: {json}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _ = self.try_request("DELETE", &path, &Value::Null);
        }
    }
}
