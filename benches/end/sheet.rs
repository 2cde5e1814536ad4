//! What a measurement found: a table for people, and JSON for the rest.

use std::{io, path::Path};

use serde_json::{Map, Value, json};

use crate::common::{machine, spread::Spread, table};

/// Rows of figures, each with the samples of its repeats, and the runs that do not count.
pub(crate) struct Sheet {
    title: String,
    settings: Value,
    rows: Vec<(String, Vec<Figure>)>,
    void: Vec<String>,
}

struct Figure {
    name: &'static str,
    /// Shown behind the point.
    digits: usize,
    samples: Vec<f64>,
}

impl Sheet {
    /// An empty one; the settings are for the JSON.
    pub(crate) fn new(title: impl Into<String>, settings: Value) -> Self {
        Self { title: title.into(), settings, rows: Vec::new(), void: Vec::new() }
    }

    /// One sample of the figure `name` of `row`; what could not be told is none.
    pub(crate) fn add(&mut self, row: &str, name: &'static str, digits: usize, sample: f64) {
        if !sample.is_finite() {
            return;
        }
        let at = self.rows.iter().position(|(one, _)| one == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        let Some((_, figures)) = self.rows.get_mut(at) else { return };
        match figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.samples.push(sample),
            None => figures.push(Figure { name, digits, samples: vec![sample] }),
        }
    }

    /// A run that was not whole and in order: none of its figures count.
    pub(crate) fn void(&mut self, what: impl Into<String>) {
        self.void.push(what.into());
    }

    /// Prints the table, writes the JSON where one is wanted, and fails where a run was void.
    pub(crate) fn finish(&self, file: Option<&Path>) -> io::Result<()> {
        self.print()?;
        if let Some(file) = file {
            std::fs::write(file, self.json().to_string() + "\n")?;
        }
        match self.void.as_slice() {
            [] => Ok(()),
            void => Err(io::Error::other(format!("{} runs were void: {}", void.len(), void.join("; ")))),
        }
    }

    fn print(&self) -> io::Result<()> {
        let mut heads = vec![""];
        for figure in self.rows.iter().flat_map(|(_, figures)| figures) {
            if !heads.contains(&figure.name) {
                heads.push(figure.name);
            }
        }
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|(name, figures)| {
                let cells = heads.iter().skip(1).map(|head| {
                    let found = figures.iter().find(|figure| figure.name == *head);
                    found.map_or_else(|| "-".to_owned(), Figure::show)
                });
                std::iter::once(name.clone()).chain(cells).collect()
            })
            .collect();
        table::print(&self.title, &heads, &rows)
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, figures)| {
                let figures: Map<String, Value> =
                    figures.iter().map(|figure| (figure.name.to_owned(), figure.json())).collect();
                json!({ "name": name, "figures": figures })
            })
            .collect();
        json!({
            "title": self.title,
            "machine": machine::describe(),
            "settings": self.settings,
            "rows": rows,
            "void": self.void,
        })
    }
}

impl Figure {
    fn spread(&self) -> Spread {
        Spread::of(self.samples.iter().copied())
    }

    fn show(&self) -> String {
        match self.samples.as_slice() {
            [one] => format!("{one:.*}", self.digits),
            _ => self.spread().show(self.digits),
        }
    }

    fn json(&self) -> Value {
        let mut json = self.spread().json();
        if let Value::Object(fields) = &mut json {
            fields.insert("repeats".to_owned(), self.samples.len().into());
        }
        json
    }
}
