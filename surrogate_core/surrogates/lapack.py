"""LAPACK as scipy has it, called so that other threads go on meanwhile: scipy's own wrappers hold Python's lock.

Matrices are C-ordered and square, and only their lower triangles are read and written: LAPACK, which counts by columns,
takes them for upper ones.
"""

import ctypes
from collections.abc import Callable

import numpy as np
from scipy.linalg import cython_lapack
from scipy.linalg.blas import dsymv

_UPPER, _PLAIN = ctypes.c_char_p(b"U"), ctypes.c_char_p(b"N")


def cholesky(K: np.ndarray) -> bool:
    """Overwrites K by its factor L, K = L L'; False where K is not positive definite."""
    return _call(_dpotrf, K, _UPPER)


def inverse_of_factored(L: np.ndarray) -> bool:
    """Overwrites L by the inverse of L L'; False where there is none."""
    return _call(_dpotri, L, _UPPER)


def inverse_of_factor(L: np.ndarray) -> bool:
    """Overwrites L by its own inverse; False where there is none."""
    return _call(_dtrtri, L, _UPPER, _PLAIN)


def times_symmetric(K: np.ndarray, z: np.ndarray) -> np.ndarray:
    """K z of a symmetric matrix."""
    return np.asarray(dsymv(1.0, K.T, z, lower=0))


def _call(routine: Callable[..., None], K: np.ndarray, *flags: ctypes.c_char_p) -> bool:
    n, info = ctypes.c_int(len(K)), ctypes.c_int(0)
    if not (K.flags.c_contiguous and K.flags.writeable and K.dtype == np.float64 and K.shape == (n.value, n.value)):
        raise ValueError(f"expected a square matrix of float64 in C order, got {K.dtype} of shape {K.shape}")
    routine(*flags, ctypes.byref(n), K.ctypes.data, ctypes.byref(n), ctypes.byref(info))
    return info.value == 0


def _routine(name: str, n_flags: int) -> Callable[..., None]:
    """A routine by the pointer that scipy.linalg.cython_lapack offers for it."""
    capsule = cython_lapack.__pyx_capi__[name]
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    pointer = pointer_of(capsule, name_of(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_char_p] * n_flags, *[ctypes.c_void_p] * 4)(pointer)


_dpotrf, _dpotri, _dtrtri = _routine("dpotrf", 1), _routine("dpotri", 1), _routine("dtrtri", 2)
