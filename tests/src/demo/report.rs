//! What the demo says: text for a person, or one JSON object a check.

use std::{
    io::{Write, stdout},
    time::Instant,
};

use serde_json::json;

pub struct Report {
    json: bool,
    start: Instant,
    checks: usize,
    failed: Vec<String>,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { json, start: Instant::now(), checks: 0, failed: Vec::new() }
    }

    /// For a person only.
    pub fn text(&self, text: &str) {
        if !self.json {
            out(text);
        }
    }

    /// What takes a while; on standard error, so that it also shows with `--json`.
    pub fn step(&self, what: &str) {
        eprintln!("{:5.1}s  {what}", self.start.elapsed().as_secs_f32());
    }

    /// A check that a table or a sentence beside it shows.
    pub fn check(&mut self, check: &str, expected: &str, got: &str) -> bool {
        self.judge(check, expected, got, expected == got)
    }

    /// A check whose answer is not one text.
    pub fn judge(&mut self, check: &str, expected: &str, got: &str, ok: bool) -> bool {
        self.checks += 1;
        if self.json {
            out(&(json!({ "check": check, "expected": expected, "got": got, "ok": ok }).to_string() + "\n"));
        }
        if !ok {
            self.failed.push(format!("{check}: expected {expected}, got {got}"));
        }
        ok
    }

    /// A check as a line of its own.
    pub fn line(&mut self, check: &str, expected: &str, got: &str, ok: bool) {
        self.judge(check, expected, got, ok);
        self.text(&format!("  {} {check}: {got}\n", if ok { "ok  " } else { "FAIL" }));
    }

    /// Says how it went; whether all checks held.
    pub fn finish(self) -> bool {
        let (checks, failed) = (self.checks, self.failed.len());
        self.text(&format!(
            "\n{} of {checks} checks as expected, {:.0} s\n",
            checks - failed,
            self.start.elapsed().as_secs_f32()
        ));
        for line in &self.failed {
            eprintln!("FAIL  {line}");
        }
        self.failed.is_empty()
    }
}

fn out(text: &str) {
    // Whoever closed the pipe does not want to know; the exit status still says how it went.
    let _ = stdout().lock().write_all(text.as_bytes());
}
