//! What one file says.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use super::{super::parse, prints::Print};
use crate::{model::ObjectKey, store::Problem};

#[derive(Default)]
pub(super) struct File {
    pub read: Print,
    pub objects: parse::Objects,
    /// Objects whose document is refused, as they were before.
    pub kept: BTreeSet<ObjectKey>,
    pub problems: Vec<Problem>,
    pub incomplete: bool,
    /// It could not be read and is tried again at every look.
    pub failed: bool,
}

impl File {
    pub fn take(&mut self, name: &str, text: &str) {
        let mut content = parse::file(name, text, &self.objects);
        // What says the same stays the same object, which is quick to compare for everybody behind.
        for (key, object) in &mut content.objects {
            if let Some(before) = self.objects.get(key).filter(|before| *before == object) {
                *object = Arc::clone(before);
            }
        }
        self.objects = content.objects;
        self.kept = content.kept;
        self.problems = content.problems;
        self.incomplete = content.incomplete;
    }

    pub fn read_from(&mut self, path: &Path, name: &str) {
        let text = fs::read_to_string(path);
        self.failed = text.is_err();
        match text {
            Ok(text) => self.take(name, &text),
            Err(error) => {
                self.problems = vec![Problem {
                    origin: name.to_owned(),
                    object: "file".to_owned(),
                    field: String::new(),
                    message: format!("cannot be read: {error}"),
                }];
                self.kept = self.objects.keys().cloned().collect();
                self.incomplete = true;
            }
        }
    }
}
