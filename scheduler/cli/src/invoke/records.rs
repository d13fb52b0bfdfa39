//! What a function has published, as the helpers in its executor have kept it.

use std::path::Path;

use serde::Serialize;

use crate::{bytes, terminal};

/// One object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// For an object in no bucket: the function that it went to.
    pub function: String,
    /// Its bucket; empty for a direct object.
    pub bucket: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// Its group; empty for none.
    pub group: Vec<u8>,
    /// When the scheduler took it.
    pub arrival_ns: u64,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// The same for `--json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    size_bytes: usize,
    #[serde(flatten)]
    content: Content,
}

/// A payload as JSON can hold it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// All of it: it is text.
    Text(String),
    /// Its beginning, with bytes escaped.
    BeginsWith(String),
}

impl Content {
    /// The whole payload where it is text.
    pub fn whole(payload: &[u8]) -> Self {
        let is_binary = |c: char| c.is_control() && !c.is_ascii_whitespace();
        match std::str::from_utf8(payload) {
            Ok(text) if !text.contains(is_binary) => Self::Text(text.to_owned()),
            _ => Self::BeginsWith(bytes::preview(payload)),
        }
    }
}

impl Record {
    /// Reads a description: four lengths and the time of arrival, then the texts.
    pub fn read(description: &[u8]) -> Option<Self> {
        const NUMBERS: usize = 5;
        let (head, mut rest) = description.split_at_checked(NUMBERS * 8)?;
        let number = |index: usize| {
            let bytes = head[index * 8..][..8].try_into().ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let mut texts = [const { Vec::new() }; 4];
        for (index, text) in texts.iter_mut().enumerate() {
            let (own, after) = rest.split_at_checked(usize::try_from(number(index)?).ok()?)?;
            *text = own.to_vec();
            rest = after;
        }
        let [function, bucket, key, group] = texts;
        rest.is_empty().then_some(Self {
            function: String::from_utf8(function).ok()?,
            bucket,
            key,
            group,
            arrival_ns: number(4)?,
            payload: Vec::new(),
        })
    }

    /// Where it went: a bucket, or straight to a function.
    fn destination(&self) -> String {
        if self.bucket.is_empty() {
            format!("-> {}", self.function)
        } else {
            bytes::name(&self.bucket)
        }
    }

    /// For `--json`.
    pub fn summary(&self) -> Summary {
        let is_direct = self.bucket.is_empty();
        Summary {
            bucket: (!is_direct).then(|| bytes::name(&self.bucket)),
            function: is_direct.then(|| self.function.clone()),
            key: bytes::name(&self.key),
            group: bytes::name(&self.group),
            size_bytes: self.payload.len(),
            content: Content::whole(&self.payload),
        }
    }

    /// The name of its file, the `index`-th of `count`: `3-bucket-key`, in the order of arrival.
    pub fn file_name(&self, index: usize, count: usize) -> String {
        let digits = count.to_string().len();
        let to = if self.bucket.is_empty() {
            self.function.clone()
        } else {
            bytes::name(&self.bucket)
        };
        let number = index + 1;
        let name = format!("{number:0digits$}-{to}-{}", bytes::name(&self.key));
        // A key may hold what a file name may not.
        let safe: String = name
            .chars()
            .map(|c| if c == '/' { '_' } else { c })
            .collect();
        let safe = Path::new(&safe)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        safe.chars().take(FILE_NAME_CHARS_MAX).collect()
    }
}

/// A file name has 255 bytes; a character at most four.
const FILE_NAME_CHARS_MAX: usize = 63;

/// All of them as a table.
pub fn table(records: &[Record], colours: bool) -> String {
    if records.is_empty() {
        return "nothing was published\n".to_owned();
    }
    let header = ["to", "key", "group", "bytes", "begins with"];
    let mut table = terminal::table(colours, &header, &[3]);
    for record in records {
        table.add_row([
            record.destination(),
            bytes::name(&record.key),
            bytes::name(&record.group),
            record.payload.len().to_string(),
            bytes::preview(&record.payload),
        ]);
    }
    terminal::table_text(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(texts: [&[u8]; 4], arrival_ns: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in texts {
            bytes.extend_from_slice(&(text.len() as u64).to_ne_bytes());
        }
        bytes.extend_from_slice(&arrival_ns.to_ne_bytes());
        texts.iter().for_each(|text| bytes.extend_from_slice(text));
        bytes
    }

    fn record(bucket: &str, key: &str) -> Record {
        Record {
            function: "count".into(),
            bucket: bucket.into(),
            key: key.into(),
            payload: b"12 words\n".to_vec(),
            ..Record::default()
        }
    }

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let bytes = description([b"f", b"b", b"\xff", b""], 9);
        let record = Record::read(&bytes).expect("a description");
        assert_eq!((record.function.as_str(), record.arrival_ns), ("f", 9));
        assert_eq!(
            (record.bucket.as_slice(), record.key.as_slice()),
            (&b"b"[..], &b"\xff"[..])
        );
    }

    #[test]
    fn what_is_no_description_is_none() {
        let bytes = description([b"f", b"b", b"k", b"g"], 9);
        for end in 0..bytes.len() {
            assert_eq!(Record::read(&bytes[..end]), None, "{end}");
        }
        assert_eq!(Record::read(&[&bytes[..], b"x"].concat()), None);
        let mut huge = bytes;
        huge[..8].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(Record::read(&huge), None);
    }

    #[test]
    fn the_table_tells_buckets_from_functions() {
        let text = table(&[record("counts", "part-0"), record("", "~1.0")], false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("counts") && lines[1].contains("part-0"),
            "{text}"
        );
        assert!(lines[1].ends_with("9  12 words\\n"), "{text}");
        assert!(lines[2].starts_with("-> count"), "{text}");
        assert_eq!(table(&[], false), "nothing was published\n");
    }

    #[test]
    fn files_have_names_that_files_can_have() {
        assert_eq!(
            record("counts", "part-0").file_name(0, 12),
            "01-counts-part-0"
        );
        assert_eq!(
            record("b", "../../etc/passwd").file_name(1, 2),
            "2-b-.._.._etc_passwd"
        );
        assert!(record("b", &"k".repeat(255)).file_name(1, 2).len() <= 255);
        assert!(!record("b", "a\0b").file_name(1, 2).contains('\0'));
    }

    #[test]
    fn json_holds_text_whole_and_the_beginning_of_what_is_none() {
        let summary = serde_json::to_value(record("counts", "k").summary()).expect("JSON");
        assert_eq!(summary["text"], "12 words\n");
        assert_eq!(
            Content::whole(b"a\0b"),
            Content::BeginsWith("a\\x00b".into())
        );
        assert_eq!(
            Content::whole(b"\xff\x00"),
            Content::BeginsWith("\\xff\\x00".into())
        );
    }
}
