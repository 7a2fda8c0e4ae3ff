//! `dig`, a client of DNS that is not ours, and what it has understood.

use std::fmt::Write as _;

/// Words that make it print all that is asked of it here, and wait no longer than a client does.
pub const OPTIONS: [&str; 6] = ["+nocmd", "+noquestion", "+nostats", "+timeout=5", "+tries=2", "+qr"];

/// The answer in what it printed: the code, `tc` where it had to ask again over TCP, then the records of each
/// section. `None`: there was none.
pub fn answer(printed: &str) -> Option<Vec<String>> {
    // The question comes first, with `+qr`, and looks alike.
    let (_, answer) = printed.split_once(";; Got answer:")?;
    let mut lines = Vec::new();
    let mut section = String::new();
    for line in answer.lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            let mut code = rest.split(',').next().unwrap_or_default().to_owned();
            if printed.contains(";; Truncated, retrying in TCP mode") {
                code.push_str(" tc");
            }
            lines.push(code);
        } else if let Some((_, flags)) = line.split_once(";; flags: ") {
            let flags = flags.split(';').next().unwrap_or_default();
            if let Some(code) = lines.first_mut() {
                flags.split(' ').filter(|flag| *flag == "aa").for_each(|_| code.push_str(" aa"));
            }
        } else if let Some(title) = line.strip_prefix(";; ").and_then(|line| line.strip_suffix(" SECTION:")) {
            section = title.to_lowercase();
        } else if !line.is_empty() && !line.starts_with(';') {
            let mut record = String::new();
            if section != "answer" {
                write!(record, "{section}: ").ok()?;
            }
            record.push_str(&line.split_whitespace().collect::<Vec<_>>().join(" "));
            lines.push(record);
        }
    }
    // Of several addresses any may be the first.
    let records = lines.len().min(1);
    lines[records..].sort();
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn what_was_printed_is_taken_apart() {
        let printed = "\
;; Sending:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1
;; flags: rd ad; QUERY: 1, ANSWER: 0, AUTHORITY: 0, ADDITIONAL: 1

;; Truncated, retrying in TCP mode.
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 1
;; flags: qr aa rd; QUERY: 1, ANSWER: 2, AUTHORITY: 1, ADDITIONAL: 1
;; WARNING: recursion requested but not available

;; OPT PSEUDOSECTION:
; EDNS: version: 0, flags:; udp: 1232
;; ANSWER SECTION:
b.\t\t5\tIN\tA\t192.0.2.2
a.\t\t5\tIN\tA\t192.0.2.1

;; AUTHORITY SECTION:
c.\t5 IN SOA ns.c. x. 1 2 3 4 5
";
        let expected = [
            "NXDOMAIN tc aa",
            "a. 5 IN A 192.0.2.1",
            "authority: c. 5 IN SOA ns.c. x. 1 2 3 4 5",
            "b. 5 IN A 192.0.2.2",
        ];
        assert_eq!(answer(printed).unwrap(), expected);
        assert_eq!(answer(";; connection timed out; no servers could be reached"), None);
    }
}
