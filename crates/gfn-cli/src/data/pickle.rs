//! Python's pickles, read as plain data.
//!
//! A pickle is a program for a small stack machine, which can call any function when Python runs
//! it. This machine knows numbers, text, containers and NumPy's arrays; it calls nothing, and
//! any other name in the file is an error. Values lie in one table and refer to each other by
//! number, so neither lists that hold themselves nor deep nesting lead to recursion.

use std::borrow::Cow;
use std::collections::HashMap;

/// A longer file is refused.
const LONGEST: usize = 64 << 20;
/// A file that keeps more values than this is refused; 161,051 strings with numbers need about
/// half in the wordiest protocol.
const MOST_KEPT: usize = 8 << 20;
/// NumPy's own limit is 64 dimensions; the files at hand have one or two.
const MOST_DIMENSIONS: usize = 4;

/// The number of a value in its [`Pickle`].
pub type Id = u32;

/// A value; containers hold the numbers of their members.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Nothing,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Array(Box<Array>),
    /// The type of NumPy's numbers, which arrays refer to.
    Type(NumberType),
    /// A function that Python would call; the machine knows what it would return.
    Global(Global),
}

/// The admitted names, all of them harmless.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Global {
    Scalar,
    Reconstruct,
    FromBuffer,
    Type,
    Array,
    Encode,
}

impl Global {
    fn find(module: &str, name: &str) -> Result<Self, String> {
        match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Ok(Self::Scalar),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                Ok(Self::Reconstruct)
            }
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Ok(Self::FromBuffer),
            ("numpy", "dtype") => Ok(Self::Type),
            ("numpy", "ndarray") => Ok(Self::Array),
            // Protocol 2 has no bytes of its own and writes them as text to be encoded.
            ("_codecs", "encode") => Ok(Self::Encode),
            _ => {
                let name = format!("{module}.{name}");
                // A file decides over this text; it must not reach the terminal as it is.
                let name: String = name.escape_debug().take(100).collect();
                Err(format!("wants `{name}`, which is refused: a data file holds only data"))
            }
        }
    }
}

/// The type of little-endian NumPy numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberType {
    kind: u8,
    size: usize,
}

impl NumberType {
    fn parse(text: &str) -> Result<Self, String> {
        let (kind, size) = match text.trim_start_matches(['<', '=', '|']) {
            "f4" => (b'f', 4),
            "f8" => (b'f', 8),
            "b1" | "u1" => (b'u', 1),
            "u2" => (b'u', 2),
            "u4" => (b'u', 4),
            "u8" => (b'u', 8),
            "i1" => (b'i', 1),
            "i2" => (b'i', 2),
            "i4" => (b'i', 4),
            "i8" => (b'i', 8),
            other => {
                let other: String = other.escape_debug().take(20).collect();
                return Err(format!("has numbers of the type `{other}`, which is not known"));
            }
        };
        Ok(Self { kind, size })
    }

    /// A number from exactly `size` bytes.
    fn decode(self, bytes: &[u8]) -> f64 {
        let mut wide = [0; 8];
        wide[..self.size].copy_from_slice(bytes);
        let raw = u64::from_le_bytes(wide);
        let unused = 64 - 8 * self.size as u32;
        match (self.kind, self.size) {
            (b'f', 4) => f64::from(f32::from_bits(raw as u32)),
            (b'f', _) => f64::from_bits(raw),
            // The upper bits take the sign.
            (b'i', _) => ((raw << unused) as i64 >> unused) as f64,
            _ => raw as f64,
        }
    }
}

/// A NumPy array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Length of each dimension.
    pub shape: Vec<usize>,
    number: NumberType,
    column_major: bool,
    data: Id,
}

/// All values of a file.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// The value of the file.
    pub fn root(&self) -> &Value<'a> {
        self.get(self.root)
    }

    /// A member of a container.
    pub fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// The numbers of an array, row by row.
    pub fn numbers(&self, array: &Array) -> Vec<f64> {
        let Value::Bytes(data) = self.get(array.data) else { return Vec::new() };
        let numbers = data.chunks_exact(array.number.size).map(|chunk| array.number.decode(chunk));
        let numbers: Vec<f64> = numbers.collect();
        match array.shape[..] {
            [rows, columns] if array.column_major => {
                let places = (0..rows * columns).map(|i| i % columns * rows + i / columns);
                places.map(|place| numbers[place]).collect()
            }
            _ => numbers,
        }
    }
}

/// Reads a pickle of protocol 2 to 5.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence.
pub fn read(input: &[u8]) -> Result<Pickle<'_>, String> {
    if !matches!(input, [op::PROTO, 2..=5, ..]) {
        return Err("is not a pickle of protocol 2 to 5".to_owned());
    }
    if input.len() > LONGEST {
        return Err(format!("is a pickle of {} bytes, more than {LONGEST}", input.len()));
    }
    let mut machine = Machine { input, ..Machine::default() };
    let root = machine.run().map_err(|message| format!("{message} (byte {})", machine.at))?;
    Ok(Pickle { values: machine.values, root })
}

/// The instructions, named as in Python's `pickletools`.
mod op {
    pub const PROTO: u8 = 0x80;
    pub const FRAME: u8 = 0x95;
    pub const STOP: u8 = b'.';
    pub const MARK: u8 = b'(';
    pub const POP: u8 = b'0';
    pub const POP_MARK: u8 = b'1';
    pub const DUP: u8 = b'2';
    pub const NONE: u8 = b'N';
    pub const NEWTRUE: u8 = 0x88;
    pub const NEWFALSE: u8 = 0x89;
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const BININT2: u8 = b'M';
    pub const LONG1: u8 = 0x8a;
    pub const BINFLOAT: u8 = b'G';
    pub const SHORT_BINUNICODE: u8 = 0x8c;
    pub const BINUNICODE: u8 = b'X';
    pub const BINUNICODE8: u8 = 0x8d;
    pub const SHORT_BINBYTES: u8 = b'C';
    pub const BINBYTES: u8 = b'B';
    pub const BINBYTES8: u8 = 0x8e;
    pub const BYTEARRAY8: u8 = 0x96;
    pub const EMPTY_TUPLE: u8 = b')';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;
    pub const TUPLE: u8 = b't';
    pub const EMPTY_LIST: u8 = b']';
    pub const LIST: u8 = b'l';
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const EMPTY_DICT: u8 = b'}';
    pub const DICT: u8 = b'd';
    pub const SETITEM: u8 = b's';
    pub const SETITEMS: u8 = b'u';
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const MEMOIZE: u8 = 0x94;
    pub const GLOBAL: u8 = b'c';
    pub const STACK_GLOBAL: u8 = 0x93;
    pub const REDUCE: u8 = b'R';
    pub const BUILD: u8 = b'b';
}

#[derive(Default)]
struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    kept: usize,
    encoded: usize,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        loop {
            let code = self.byte()?;
            if code == op::STOP {
                return self.pop();
            }
            let known = self.atom(code)?
                || self.text(code)?
                || self.container(code)?
                || self.stack_or_memo(code)?
                || self.object(code)?;
            if !known {
                return Err(format!("has the pickle instruction {code:#04x}, which is refused"));
            }
        }
    }

    fn atom(&mut self, code: u8) -> Step<bool> {
        let value = match code {
            op::NONE => Value::Nothing,
            op::NEWTRUE => Value::Bool(true),
            op::NEWFALSE => Value::Bool(false),
            op::BININT => Value::Int(i64::from(self.four()? as i32)),
            op::BININT1 => Value::Int(i64::from(self.byte()?)),
            op::BININT2 => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            op::LONG1 => Value::Int(self.long()?),
            op::BINFLOAT => Value::Float(f64::from_be_bytes(self.array()?)),
            _ => return Ok(false),
        };
        self.push(value).map(|()| true)
    }

    fn text(&mut self, code: u8) -> Step<bool> {
        let length = match code {
            op::SHORT_BINUNICODE | op::SHORT_BINBYTES => usize::from(self.byte()?),
            op::BINUNICODE | op::BINBYTES => self.four()? as usize,
            op::BINUNICODE8 | op::BINBYTES8 | op::BYTEARRAY8 => self.eight()?,
            _ => return Ok(false),
        };
        let bytes = self.take(length)?;
        let value = match code {
            op::SHORT_BINUNICODE | op::BINUNICODE | op::BINUNICODE8 => {
                Value::Text(std::str::from_utf8(bytes).map_err(|_| "has text that is not UTF-8")?)
            }
            _ => Value::Bytes(Cow::Borrowed(bytes)),
        };
        self.push(value).map(|()| true)
    }

    fn container(&mut self, code: u8) -> Step<bool> {
        match code {
            op::EMPTY_TUPLE => self.push(Value::Tuple(Vec::new()))?,
            op::EMPTY_LIST => self.push(Value::List(Vec::new()))?,
            op::EMPTY_DICT => self.push(Value::Dict(Vec::new()))?,
            op::TUPLE1 => self.tuple(1)?,
            op::TUPLE2 => self.tuple(2)?,
            op::TUPLE3 => self.tuple(3)?,
            op::TUPLE => {
                let members = self.since_mark()?;
                self.push(Value::Tuple(members))?;
            }
            op::LIST => {
                let members = self.since_mark()?;
                self.push(Value::List(members))?;
            }
            op::DICT => {
                let pairs = pairs(&self.since_mark()?)?;
                self.push(Value::Dict(pairs))?;
            }
            op::APPEND => {
                let members = self.last(1)?;
                self.append(&members)?;
            }
            op::APPENDS => {
                let members = self.since_mark()?;
                self.append(&members)?;
            }
            op::SETITEM => {
                let members = self.last(2)?;
                self.set(&members)?;
            }
            op::SETITEMS => {
                let members = self.since_mark()?;
                self.set(&members)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn stack_or_memo(&mut self, code: u8) -> Step<bool> {
        match code {
            op::PROTO => drop(self.byte()?),
            op::FRAME => drop(self.eight()?),
            op::MARK => {
                self.marks.push(self.stack.len());
                self.count()?;
            }
            op::POP => drop(self.pop()?),
            op::POP_MARK => drop(self.since_mark()?),
            op::DUP => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            op::BINGET => {
                let key = u32::from(self.byte()?);
                self.recall(key)?;
            }
            op::LONG_BINGET => {
                let key = self.four()?;
                self.recall(key)?;
            }
            op::BINPUT => {
                let key = u32::from(self.byte()?);
                self.remember(key)?;
            }
            op::LONG_BINPUT => {
                let key = self.four()?;
                self.remember(key)?;
            }
            op::MEMOIZE => self.remember(self.memo.len() as u32)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn object(&mut self, code: u8) -> Step<bool> {
        match code {
            op::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(Global::find(module, name)?))?;
            }
            op::STACK_GLOBAL => {
                let [module, name] = self.last_two()?;
                let global = Global::find(self.text_of(module)?, self.text_of(name)?)?;
                self.push(Value::Global(global))?;
            }
            op::REDUCE => {
                let [function, arguments] = self.last_two()?;
                let Value::Global(function) = *self.get(function) else {
                    return Err("calls something that is not a function".to_owned());
                };
                let value = self.call(function, arguments)?;
                self.push(value)?;
            }
            op::BUILD => {
                let state = self.pop()?;
                let target = self.top()?;
                self.build(target, state)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What NumPy's function would return; nothing is called.
    fn call(&mut self, function: Global, arguments: Id) -> Step<Value<'a>> {
        let arguments = self.tuple_of(arguments)?.to_vec();
        match (function, &arguments[..]) {
            (Global::Encode, &[text, encoding]) => self.encode(text, encoding),
            (Global::Type, &[name, ..]) => Ok(Value::Type(NumberType::parse(self.text_of(name)?)?)),
            (Global::Scalar, &[number, data]) => {
                let (number, data) = (self.type_of(number)?, self.bytes_of(data)?);
                if data.len() != number.size {
                    return Err("has a number of the wrong size".to_owned());
                }
                Ok(Value::Float(number.decode(data)))
            }
            // A blank; the instruction BUILD fills it.
            (Global::Reconstruct, &[class, ..]) => match self.get(class) {
                Value::Global(Global::Array) => {
                    let number = NumberType { kind: b'u', size: 1 };
                    let data = self.store(Value::Bytes(Cow::Borrowed(&[])))?;
                    let shape = vec![0];
                    Ok(Value::Array(Box::new(Array { shape, number, column_major: false, data })))
                }
                _ => Err("has an object that is not a NumPy array".to_owned()),
            },
            (Global::FromBuffer, &[data, number, shape, order]) => {
                let column_major = match self.text_of(order)? {
                    "C" => false,
                    "F" => true,
                    _ => return Err("has a NumPy array in an unknown order".to_owned()),
                };
                self.filled(shape, number, column_major, data)
            }
            _ => Err("has a call that is refused".to_owned()),
        }
    }

    /// The state of a NumPy type or array, as NumPy's `__setstate__` takes it.
    fn build(&mut self, target: Id, state: Id) -> Step {
        let state = self.tuple_of(state)?.to_vec();
        match (self.get(target), &state[..]) {
            (Value::Type(_), &[_, order, ..]) => match self.text_of(order)? {
                "<" | "=" | "|" => Ok(()),
                _ => Err("has NumPy numbers that are not little-endian".to_owned()),
            },
            (Value::Array(_), &[_, shape, number, column_major, data]) => {
                let column_major = match self.get(column_major) {
                    Value::Bool(flag) => *flag,
                    _ => return Err("has a NumPy array in an unknown order".to_owned()),
                };
                self.values[target as usize] = self.filled(shape, number, column_major, data)?;
                Ok(())
            }
            _ => Err("has an object that is refused".to_owned()),
        }
    }

    fn filled(&self, shape: Id, number: Id, column_major: bool, data: Id) -> Step<Value<'a>> {
        let number = self.type_of(number)?;
        let shape = self.tuple_of(shape)?;
        if shape.len() > MOST_DIMENSIONS || column_major && shape.len() > 2 {
            return Err(format!("has a NumPy array of {} dimensions", shape.len()));
        }
        let length = |&id: &Id| match self.get(id) {
            Value::Int(length) => usize::try_from(*length).ok(),
            _ => None,
        };
        let shape: Option<Vec<usize>> = shape.iter().map(length).collect();
        let shape = shape.ok_or("has a NumPy array of an unknown shape")?;
        let size = shape.iter().try_fold(number.size, |size, &length| size.checked_mul(length));
        if size != Some(self.bytes_of(data)?.len()) {
            return Err("has a NumPy array whose data do not fit its shape".to_owned());
        }
        Ok(Value::Array(Box::new(Array { shape, number, column_major, data })))
    }

    fn encode(&mut self, text: Id, encoding: Id) -> Step<Value<'a>> {
        let text = self.text_of(text)?;
        if !matches!(self.text_of(encoding)?, "latin1" | "latin-1") {
            return Err("has bytes in an unknown encoding".to_owned());
        }
        // One text can be encoded many times over: the sum counts.
        self.encoded += text.len();
        if self.encoded > LONGEST {
            return Err("has too many encoded bytes".to_owned());
        }
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        Ok(Value::Bytes(Cow::Owned(bytes.map_err(|_| "has bytes above 255")?)))
    }

    fn append(&mut self, members: &[Id]) -> Step {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(members),
            _ => return Err("appends to something that is not a list".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, members: &[Id]) -> Step {
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => dict.extend(pairs(members)?),
            _ => return Err("sets keys of something that is not a dictionary".to_owned()),
        }
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Step {
        let members = self.last(count)?;
        self.push(Value::Tuple(members))
    }

    fn remember(&mut self, key: u32) -> Step {
        let top = self.top()?;
        self.memo.insert(key, top);
        self.count()
    }

    fn recall(&mut self, key: u32) -> Step {
        let id = *self.memo.get(&key).ok_or("refers to a value that it does not have")?;
        self.push_id(id)
    }

    fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    fn text_of(&self, id: Id) -> Step<&'a str> {
        match self.get(id) {
            Value::Text(text) => Ok(text),
            _ => Err("has something else where text is expected".to_owned()),
        }
    }

    fn bytes_of(&self, id: Id) -> Step<&[u8]> {
        match self.get(id) {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err("has something else where bytes are expected".to_owned()),
        }
    }

    fn tuple_of(&self, id: Id) -> Step<&[Id]> {
        match self.get(id) {
            Value::Tuple(members) if members.len() <= 16 => Ok(members),
            _ => Err("has something else where arguments are expected".to_owned()),
        }
    }

    fn type_of(&self, id: Id) -> Step<NumberType> {
        match self.get(id) {
            Value::Type(number) => Ok(*number),
            _ => Err("has something else where a type is expected".to_owned()),
        }
    }

    fn store(&mut self, value: Value<'a>) -> Step<Id> {
        self.values.push(value);
        self.count()?;
        Ok((self.values.len() - 1) as Id)
    }

    fn push(&mut self, value: Value<'a>) -> Step {
        let id = self.store(value)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Step {
        self.stack.push(id);
        self.count()
    }

    /// Bounds the memory: nothing gets into a table without being counted.
    fn count(&mut self) -> Step {
        self.kept += 1;
        match self.kept > MOST_KEPT {
            true => Err("has too many values".to_owned()),
            false => Ok(()),
        }
    }

    /// Values below the last mark are out of reach.
    fn reachable(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Id> {
        let top = self.stack.last().filter(|_| self.reachable() > 0);
        top.copied().ok_or_else(|| "takes a value from an empty stack".to_owned())
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn last(&mut self, count: usize) -> Step<Vec<Id>> {
        if self.reachable() < count {
            return Err("takes a value from an empty stack".to_owned());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn last_two(&mut self) -> Step<[Id; 2]> {
        let second = self.pop()?;
        Ok([self.pop()?, second])
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("has no mark where one is needed")?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.input.get(self.at..end));
        let bytes = bytes.ok_or("is a pickle that is cut off")?;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("that many were taken"))
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn four(&mut self) -> Step<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn eight(&mut self) -> Step<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| "has an impossible length".to_owned())
    }

    /// An integer of up to eight bytes, the last of which has the sign.
    fn long(&mut self) -> Step<i64> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        if length > 8 {
            return Err(format!("has an integer of {length} bytes"));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..length].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(wide))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.input[self.at..];
        let end =
            rest.iter().position(|&byte| byte == b'\n').ok_or("is a pickle that is cut off")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "has a name that is not text".to_owned())
    }
}

fn pairs(members: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = members.as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("has a key without a value".to_owned()),
    }
}

#[cfg(test)]
mod tests;
