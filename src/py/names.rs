//! The Python classes and strings that results are made of.
//!
//! All are made when the module is imported. If one were made at its first use, its thread would hold PyO3's lock of
//! that cell while it waits for the interpreter; in a child forked at that moment the lock would stay held for ever.

use crate::abi::{Direction, Kind};
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyString, PyType};

macro_rules! names {
    (classes { $($class:ident: $name:literal),* $(,)? } strings { $($string:ident: $text:literal),* $(,)? }) => {
        /// Classes of `iovec_rs._types`, members of its enums, and interned strings.
        pub(super) struct Names {
            $(pub(super) $class: Py<PyType>,)*
            $(pub(super) $string: Py<PyString>,)*
            directions: [Py<PyAny>; 2],
            iter_kind: Py<PyAny>,
            kinds: [Py<PyAny>; Kind::ALL.len()],
        }

        impl Names {
            fn new(py: Python<'_>) -> PyResult<Self> {
                let types = py.import("iovec_rs._types")?;
                let iter_kind = iter_kind(py)?;
                Ok(Self {
                    $($class: types.getattr($name)?.cast_into::<PyType>()?.unbind(),)*
                    $($string: PyString::intern(py, $text).unbind(),)*
                    directions: members(&types.getattr("Direction")?, DIRECTIONS.map(|direction| direction as u8))?,
                    kinds: members(&iter_kind, Kind::ALL.map(Kind::name))?,
                    iter_kind: iter_kind.unbind(),
                })
            }
        }
    };
}

names! {
    classes {
        user_range: "UserRange",
        page_span: "PageSpan",
        fault: "Fault",
        fault_error: "FaultError",
        fault_range: "FaultRange",
        corrupt_error: "CorruptError",
        record: "Record",
        torn_error: "TornError",
        mc_result: "McResult",
    }
    strings {
        source: "source",
        destination: "destination",
        poison: "poison",
        gone: "gone",
        protection: "protection",
        unmapped: "unmapped",
        bad_address: "bad_address",
        unknown: "unknown",
        map: "map",
        signal: "signal",
        syscall: "syscall",
        read: "read",
        write: "write",
        both: "both",
        nbytes: "nbytes",
        update: "update",
        release: "release",
        index: "__index__",
        iter: "__iter__",
        getitem: "__getitem__",
        context: "__context__",
        buffer: "__buffer__",
        add_note: "add_note",
        sequence: "sequence",
        characters_written: "characters_written",
        copied: "copied",
        fault_attribute: "fault",
        cause: "cause",
        guard: "guard",
        crc32c: "crc32c",
        gettimeout: "gettimeout",
        sys: "sys",
        modules: "modules",
        ssl: "ssl",
        items: "items",
        ssl_socket: "SSLSocket",
        numpy: "numpy",
        ndarray: "ndarray",
        array: "array",
        mmap: "mmap",
        base: "base",
    }
}

/// Makes `iovec_rs.IterKind`, an enum with a member for each kind.
fn iter_kind(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let members = Kind::ALL.map(|kind| (kind.name().to_uppercase(), kind.name())).to_vec();
    let place = [("module", "iovec_rs")].into_py_dict(py)?;
    let class = py.import("enum")?.getattr("StrEnum")?.call(("IterKind", members), Some(&place))?;
    class.setattr("__doc__", "The kinds of memory that an iterator runs over (`enum iter_type`).")?;
    Ok(class)
}

const DIRECTIONS: [Direction; 2] = [Direction::Dest, Direction::Source];

/// The members of an enum by their values.
fn members<'py, T: IntoPyObject<'py>, const N: usize>(
    class: &Bound<'py, PyAny>,
    values: [T; N],
) -> PyResult<[Py<PyAny>; N]> {
    let found: PyResult<Vec<_>> = values.into_iter().map(|value| Ok(class.call1((value,))?.unbind())).collect();
    Ok(found?.try_into().expect("as many members as values"))
}

impl Names {
    /// A member of `iovec_rs.Direction`.
    pub(super) fn direction(&self, direction: Direction) -> &Py<PyAny> {
        &self.directions[direction as usize]
    }

    /// `iovec_rs.IterKind`.
    pub(super) fn iter_kind(&self) -> &Py<PyAny> {
        &self.iter_kind
    }

    /// A member of `iovec_rs.IterKind`.
    pub(super) fn kind(&self, kind: Kind) -> &Py<PyAny> {
        &self.kinds[kind as usize]
    }
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

/// Makes the names, when the module is imported.
pub(super) fn init(py: Python<'_>) -> PyResult<()> {
    // PyO3 makes the class of its panics at the first panic; this makes it now.
    py.get_type::<PanicException>();
    // An import that failed later may have made them.
    if NAMES.get(py).is_none() {
        // Nobody else makes them meanwhile, since the module is loaded once.
        let _ = NAMES.set(py, Names::new(py)?);
    }
    Ok(())
}

/// The names. Reading them takes no lock, since `init` has set them.
pub(super) fn names(py: Python<'_>) -> &Names {
    NAMES.get(py).expect("made when the module is imported")
}
