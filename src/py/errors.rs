//! Refusals as exceptions.

use crate::error::Error;
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Os { errno, context } => PyOSError::new_err((errno, context)),
            Error::ReadOnly { .. } | Error::ReadOnlyRegion => PyBufferError::new_err(error.to_string()),
            Error::Handler(_) | Error::TooManyGuards(_) => PyRuntimeError::new_err(error.to_string()),
            Error::NoMemory(_) => PyMemoryError::new_err(error.to_string()),
            _ => PyValueError::new_err(error.to_string()),
        }
    }
}
