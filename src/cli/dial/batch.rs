//! A batch: which call each row is. The same file with the same options gives the same calls under the same ids, so
//! that amibus recognises each and carries it out once.

use std::collections::{HashMap, HashSet};

use amibus_contract::{Bytes, message::check_server};
use jiff::Timestamp;
use serde_json::json;

use super::{
    options::Options,
    table::{Fault, Faults, Row, Table},
    template::{Care, Template},
    variables::{self, Variable},
};
use crate::{
    command::decode::{self, MAX_ID_BYTES},
    config::units,
};

/// The longest command, as `command.max_command_bytes` has it unless configured otherwise.
const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Why a batch cannot be made.
#[derive(Debug)]
pub(super) enum Wrong {
    /// An option.
    Option(String),
    /// Columns of the file.
    File(String),
}

/// All calls.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) name: String,
    table: Table,
    server: Template,
    /// The headers that are templates, by name.
    headers: Vec<(&'static str, Template)>,
    timeout: Option<Template>,
    variables: Vec<Variable>,
    /// The column that tells what is dialled, for results.
    number: usize,
    ids: Ids,
    allowed: String,
}

#[derive(Debug)]
enum Ids {
    Rows,
    Column(usize),
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) server: String,
    fields: String,
}

impl Call {
    /// The command, JSON. What it asks for is the same at each run; a deadline is not a part of that.
    pub(super) fn body(&self, deadline: Timestamp) -> Bytes {
        let Self { id, server, fields } = self;
        let (id, server) = (json!(id), json!(server));
        let head = format!("{{\"id\":{id},\"server\":{server},\"action\":\"Originate\",\"wait\":\"final\"");
        format!("{head},\"deadline\":\"{deadline}\",\"fields\":{fields}}}").into()
    }
}

impl Batch {
    /// Reads the options for the columns of `table`.
    ///
    /// # Errors
    /// What is wrong, with its option or column.
    pub(super) fn new(options: &Options, table: Table) -> Result<Self, Wrong> {
        let columns = &table.columns;
        let read =
            |option, care, text: &str| Template::parse(option, care, text, columns).map_err(Wrong::Option);
        let dialled = |option, text: &str| read(option, Care::Dialled, text);
        let server = dialled("--server", &options.server)?;
        let mut headers = vec![("Channel", dialled("--channel", &options.channel)?)];
        if let Some(context) = &options.context {
            headers.push(("Context", dialled("--context", context)?));
            headers.push(("Exten", dialled("--exten", &options.exten)?));
            headers.push(("Priority", dialled("--priority", &options.priority)?));
        }
        for (header, option, text, care) in [
            ("Application", "--application", &options.application, Care::Dialled),
            ("Data", "--data", &options.data, Care::Dialled),
            ("CallerID", "--caller-id", &options.caller_id, Care::CallerId),
            ("Account", "--account", &options.account, Care::Dialled),
        ] {
            if let Some(text) = text {
                headers.push((header, read(option, care, text)?));
            }
        }
        let timeout =
            options.timeout.as_deref().map(|text| read("--timeout", Care::Dialled, text)).transpose()?;
        let position = |name: &str| columns.iter().position(|column| column == name);
        let first = headers.iter().flat_map(|(_, template)| template.columns()).next();
        let Some(first) = first else {
            let text = "no option uses a column, so every row would be the same call; e.g. --channel 'PJSIP/{number}@trunk'";
            return Err(Wrong::Option(text.to_owned()));
        };
        let ids = match &options.id_column {
            None => Ids::Rows,
            Some(name) => Ids::Column(position(name).ok_or_else(|| {
                Wrong::Option(format!(
                    "--id-column {name}: the file has no such column; it has {}",
                    columns.join(", ")
                ))
            })?),
        };
        let name = options.batch_name(&table.bytes).map_err(Wrong::Option)?;
        let variables =
            variables::of(columns, &options.ignored, &options.allowed_variables).map_err(Wrong::File)?;
        let (number, allowed) = (position("number").unwrap_or(first), options.allowed.clone());
        Ok(Self { name, server, headers, timeout, variables, number, ids, allowed, table })
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.table.rows.len()
    }

    /// The row's number, from 1.
    pub(super) fn row(&self, index: usize) -> u64 {
        self.table.rows.get(index).map_or(0, |row| row.number)
    }

    /// What the row dials, as it stands in the file.
    pub(super) fn number(&self, index: usize) -> &str {
        self.table.rows.get(index).map_or("", |row| row.value(self.number))
    }

    /// How many rows have a number that an earlier row has.
    pub(super) fn repeated_numbers(&self) -> usize {
        let mut seen = HashSet::new();
        self.table.rows.iter().filter(|row| !seen.insert(row.value(self.number))).count()
    }

    /// The calls' ids, and the row of each.
    pub(super) fn ids(&self) -> HashMap<String, usize> {
        let rows = self.table.rows.iter().enumerate();
        rows.filter_map(|(index, row)| Some((self.id(row).ok()?, index))).collect()
    }

    /// The one server of all rows, where it is one.
    pub(super) fn only_server(&self) -> Option<String> {
        let row = self.table.rows.first()?;
        let fixed = self.server.columns().next().is_none();
        self.server.fill(&self.table, row, &self.allowed).ok().filter(|_| fixed)
    }

    /// The call of a row.
    ///
    /// # Errors
    /// What is wrong with its values.
    pub(super) fn call(&self, index: usize) -> Result<Call, Fault> {
        let Some(row) = self.table.rows.get(index) else {
            return Err(Fault { row: 0, line: 0, column: None, text: "no such row".to_owned() });
        };
        let fill = |template: &Template| {
            let filled = template.fill(&self.table, row, &self.allowed);
            filled.map_err(|(column, why)| row.fault(self.table.columns.get(column).map(String::as_str), why))
        };
        let id = self.id(row)?;
        let server = fill(&self.server)?;
        if let Err(error) = check_server(&server) {
            return Err(row.fault(None, format!("--server gives {server:?}: {error}")));
        }
        let mut fields = Vec::new();
        for (header, template) in &self.headers {
            fields.push((*header, json!(fill(template)?).to_string()));
        }
        if let Some(timeout) = &self.timeout {
            let time = units::duration(&fill(timeout)?);
            let time = time.map_err(|why| row.fault(None, format!("--timeout: {why}")))?;
            fields.push(("Timeout", time.as_millis().to_string()));
        }
        fields.push(("Variable", self.variables(row, &id)?));
        Ok(Call { id, server, fields: object(fields) })
    }

    /// Looks at every row, as amibus will.
    pub(super) fn check(&self, deadline: Timestamp, faults: &mut Faults) {
        let mut ids = HashMap::new();
        for (index, row) in self.table.rows.iter().enumerate() {
            match self.call(index) {
                Ok(call) => {
                    if let Err(error) = decode::check(&call.body(deadline), MAX_COMMAND_BYTES) {
                        faults.note(self.objection(row, &error));
                    }
                    if let Some(other) = ids.insert(call.id, row.number) {
                        faults.note(row.fault(
                            self.id_column(),
                            format!("the same id as row {other}; an id is for one call"),
                        ));
                    }
                }
                Err(fault) => faults.note(fault),
            }
        }
    }

    fn id_column(&self) -> Option<&str> {
        match self.ids {
            Ids::Rows => None,
            Ids::Column(column) => self.table.columns.get(column).map(String::as_str),
        }
    }

    fn id(&self, row: &Row) -> Result<String, Fault> {
        let Ids::Column(column) = self.ids else { return Ok(format!("{}-{}", self.name, row.number)) };
        let value = row.value(column);
        let id = format!("{}-{value}", self.name);
        if value.is_empty() || value.chars().any(char::is_control) || id.len() > MAX_ID_BYTES {
            let text = format!(
                "an id is not empty, has no control character and, with the batch's name, at most {MAX_ID_BYTES} bytes"
            );
            return Err(row.fault(self.id_column(), text));
        }
        Ok(id)
    }

    /// The variables as a JSON object, in the order of the columns.
    fn variables(&self, row: &Row, id: &str) -> Result<String, Fault> {
        let mut variables = Vec::with_capacity(self.variables.len() + 3);
        for Variable { name, column } in &self.variables {
            let value = row.value(*column);
            if let Some(c) = value.chars().find(|c| matches!(c, '\r' | '\n' | '\0')) {
                let text = format!("it has {c:?}, which Asterisk cannot take; take it out");
                return Err(row.fault(Some(name), text));
            }
            variables.push((name.as_str(), json!(value).to_string()));
        }
        variables.push(("AMIBUS_BATCH", json!(self.name).to_string()));
        variables.push(("AMIBUS_ROW", json!(row.number.to_string()).to_string()));
        variables.push(("AMIBUS_ID", json!(id).to_string()));
        Ok(object(variables))
    }

    /// What amibus objects to in a row's command, with the column where it is one's value.
    fn objection(&self, row: &Row, error: &crate::command::CommandError) -> Fault {
        let field = error.field.as_deref().unwrap_or_default();
        // One line for each variable: the longest is the one that is too long.
        let longest = self.variables.iter().max_by_key(|variable| row.value(variable.column).len());
        let column = match field {
            "fields.Variable" => longest.map(|variable| variable.name.as_str()),
            field => field.strip_prefix("fields.Variable."),
        };
        row.fault(column, format!("{} ({field}); shorten or mend it", error.message))
    }
}

/// An object whose keys keep their order, of values that are JSON.
fn object<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let entries: Vec<_> = entries.into_iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", entries.join(","))
}

#[cfg(test)]
mod tests {
    use encoding_rs::UTF_8;

    use super::{super::table::Form, *};

    fn table(text: &str) -> Table {
        let form = Form { delimiter: b',', encoding: UTF_8 };
        Table::parse(text.as_bytes().to_vec(), form, &mut Faults::default()).expect("right")
    }

    fn options() -> Options {
        Options {
            name: Some("b".to_owned()),
            server: "pbx1".to_owned(),
            channel: "PJSIP/{number}@trunk-a".to_owned(),
            context: Some("sales".to_owned()),
            exten: "s".to_owned(),
            priority: "1".to_owned(),
            ..Options::default()
        }
    }

    fn deadline() -> Timestamp {
        "2026-11-21T18:00:00Z".parse().expect("a time")
    }

    fn faults(options: &Options, text: &str) -> String {
        let mut faults = Faults::default();
        Batch::new(options, table(text)).expect("right options").check(deadline(), &mut faults);
        faults.to_string()
    }

    #[test]
    fn a_row_becomes_a_command() {
        let options = Options {
            caller_id: Some("{name} <100>".to_owned()),
            timeout: Some("20s".to_owned()),
            ..options()
        };
        let batch = Batch::new(&options, table("name,number\n\"O, \"\"x\"\"\",100\nb,200\n")).expect("right");
        assert!(batch.call(0).is_err(), "a quote in a caller id");
        let call = batch.call(1).expect("right");
        assert_eq!(
            String::from_utf8_lossy(&call.body(deadline())),
            "{\"id\":\"b-2\",\"server\":\"pbx1\",\"action\":\"Originate\",\"wait\":\"final\",\
             \"deadline\":\"2026-11-21T18:00:00Z\",\"fields\":{\"Channel\":\"PJSIP/200@trunk-a\",\"Context\":\"sales\",\
             \"Exten\":\"s\",\"Priority\":\"1\",\"CallerID\":\"b <100>\",\"Timeout\":20000,\"Variable\":{\"name\":\"b\",\
             \"number\":\"200\",\"AMIBUS_BATCH\":\"b\",\"AMIBUS_ROW\":\"2\",\"AMIBUS_ID\":\"b-2\"}}}"
        );
        assert_eq!((batch.number(1), batch.row(1)), ("200", 2));
        assert_eq!(batch.only_server().as_deref(), Some("pbx1"));
    }

    #[test]
    fn a_name_of_its_own_is_the_same_for_the_same_and_another_for_another() {
        let name = |options: &Options, text| Batch::new(options, table(text)).expect("right").name;
        let unnamed = Options { name: None, ..options() };
        let first = name(&unnamed, "number\n1\n");
        assert_eq!(first, "dial-e0ae25e16c83566b", "the same from version to version");
        assert_eq!(name(&unnamed.clone(), "number\n1\n"), first);
        assert_ne!(name(&unnamed, "number\n2\n"), first);
        assert_ne!(name(&Options { exten: "t".to_owned(), ..unnamed }, "number\n1\n"), first);
    }

    #[test]
    fn every_row_is_looked_at() {
        let text = "number,NOTE\n1&2,a\n2,\"b\nc\"\n,d\n4,e\n";
        let told = faults(&options(), text);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert!(lines[0].starts_with("row 1 (line 2), column number: --channel puts {number} in"), "{told}");
        assert!(lines[1].starts_with("row 2 (line 3), column NOTE: it has '\\n'"), "{told}");
        assert!(
            lines[2].starts_with("row 3 (line 5), column number: ") && lines[2].contains("it is empty"),
            "{told}"
        );
    }

    #[test]
    fn a_line_that_asterisk_would_cut_is_told_with_its_column() {
        let told = faults(&options(), &format!("number,NOTE\n1,{}\n", "x".repeat(1020)));
        assert!(told.starts_with("row 1 (line 2), column NOTE: "), "{told}");
    }

    #[test]
    fn ids_are_for_one_row() {
        let options = Options { id_column: Some("order".to_owned()), ..options() };
        let told = faults(&options, "number,order\n1,A\n2,B\n3,A\n4,\n");
        assert_eq!(
            told,
            "row 3 (line 4), column order: the same id as row 1; an id is for one call\n\
             row 4 (line 5), column order: an id is not empty, has no control character and, with the batch's name, at \
             most 200 bytes\n"
        );
    }

    #[test]
    fn wrong_options_are_told() {
        let wrong = |options: Options, text: &str| match Batch::new(&options, table(text)) {
            Err(Wrong::Option(why) | Wrong::File(why)) => why,
            Ok(_) => panic!("taken"),
        };
        let same = Options { channel: "PJSIP/1".to_owned(), ..options() };
        assert!(wrong(same, "number\n1\n").contains("every row would be the same call"));
        let name = Options { name: Some("a b".to_owned()), ..options() };
        assert!(wrong(name, "number\n1\n").contains("--batch \"a b\""));
        assert!(wrong(options(), "number,SHELL(x)\n1,2\n").contains("dialplan function"));
        let told = faults(&Options { server: "{number}".to_owned(), ..options() }, "number\nA_B\n");
        assert!(told.contains("--server gives \"A_B\""), "{told}");
        let told = faults(&Options { timeout: Some("{number}".to_owned()), ..options() }, "number\n12\n");
        assert!(told.contains("--timeout: "), "{told}");
    }
}
