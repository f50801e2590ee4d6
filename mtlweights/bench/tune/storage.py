"""Where a study is kept: SQLite, a journal file, PostgreSQL or MySQL, or Optuna's gRPC proxy before one."""

from __future__ import annotations

import errno
import importlib.util
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

SQLITE = "study.db"
PATIENCE = 60.0  #: seconds that a writer waits for another's lock
TRIES = 5  #: to connect while another worker makes the tables
ANSWERS = 10.0  #: seconds in which a proxy should answer
_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
#: SQLAlchemy's own driver of a database, and the one of pure Python or newer make that does as well
_DRIVERS = {"postgresql": ("psycopg2", "psycopg"), "mysql": ("MySQLdb", "pymysql")}
_KINDS = "a URL (sqlite:///FILE, postgresql://..., mysql://..., grpc://HOST:PORT) or a journal file, FILE.log"


def open_storage(where: str | None, folder: Path) -> BaseStorage:
    """The storage of a text: a URL, a ``.log`` file for Optuna's journal, None for SQLite in ``folder``.

    Raises:
        ValueError: the text is none of these.
        ImportError: Optuna or a driver is missing.
        OSError: it cannot be reached or written, or another version of Optuna wrote it.
    """
    where = where or f"sqlite:///{folder.resolve() / SQLITE}"
    with reaching(where):
        if where.startswith("grpc://"):
            return _grpc(where)
        if "://" in where:
            return _database(where)
        if where.endswith((".log", ".journal")):
            return _journal(where)
    raise ValueError(f"storage should be {_KINDS}; found {without_password(where)!r}.")


@contextmanager
def reaching(where: str) -> Iterator[None]:
    """Turn what a storage raises when it cannot be reached or read into one line.

    Raises:
        OSError: with the cause.
    """
    try:
        yield
    except Exception as error:
        if not (is_of_storage(error) or isinstance(error, (OSError, EOFError))):
            raise
        first = str(error).strip().partition("\n")[0]
        reason = without_password(re.sub(r"^\([\w.]+\) ", "", first))[:300] or type(error).__name__
        raise OSError(
            f"the storage {without_password(where)} cannot be used: {reason}; what has finished is kept."
        ) from None


def is_of_storage(error: BaseException) -> bool:
    """Whether an exception is a storage's: of SQLAlchemy, gRPC, Optuna's storages, or a disk that is full."""
    kinds = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(error).__mro__}
    known = {"sqlalchemy.SQLAlchemyError", "grpc.RpcError", "optuna.StorageInternalError"}
    old = isinstance(error, RuntimeError) and "optuna" in str(error) and "version" in str(error)
    return bool(kinds & known) or old or (isinstance(error, OSError) and error.errno in _OF_DISK)


def without_password(url: str) -> str:
    """A URL that may be shown."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", url)


def _database(where: str) -> BaseStorage:
    from optuna.storages import RDBStorage

    scheme, _, rest = where.partition("://")
    if scheme in _DRIVERS:
        usual, other = _DRIVERS[scheme]
        if importlib.util.find_spec(usual) is None:
            if importlib.util.find_spec(other) is None:
                raise ImportError(f"a {scheme} storage needs a driver: pip install {other}")
            where = f"{scheme}+{other}://{rest}"
    options: dict[str, Any] = {"pool_pre_ping": True}
    if scheme == "sqlite":
        Path(rest.removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": PATIENCE}}
    try:
        return _tables_made(partial(RDBStorage, where, engine_kwargs=options))
    except ValueError as error:  # Optuna's word for a URL that SQLAlchemy does not read
        raise ValueError(f"storage should be {_KINDS}; {without_password(where)!r}: {error}") from None


def _tables_made(connect: Callable[[], BaseStorage]) -> BaseStorage:
    """Connect; again where another worker made the same tables at the same moment."""
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    for _ in range(TRIES):
        try:
            return connect()
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(0.2)
    return connect()


def _journal(where: str) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = Path(where).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise OSError(f"it is no journal of this Optuna ({type(error).__name__}: {error})") from None


def _grpc(where: str) -> BaseStorage:
    from optuna.storages import GrpcStorageProxy

    if importlib.util.find_spec("grpc") is None:
        raise ImportError("a grpc:// storage needs grpcio: pip install grpcio")
    parts = urlsplit(where)
    try:
        port = parts.port or 13000
    except ValueError:
        port = 0
    if not (parts.hostname and port):
        raise ValueError(f"a gRPC proxy is given as grpc://HOST:PORT, found {where!r}.")
    with warnings.catch_warnings():  # experimental, by Optuna's own word: docs/tuning.md says so
        warnings.simplefilter("ignore")
        proxy = GrpcStorageProxy(host=parts.hostname, port=port)
    try:
        proxy.wait_server_ready(timeout=ANSWERS)
    except ConnectionError:
        raise OSError("no gRPC proxy answers there") from None
    return proxy
