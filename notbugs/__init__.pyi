from types import ModuleType
from typing import Any

from notbugs.api import attack as attack
from notbugs.api import audit as _audit
from notbugs.api import load_dataset as load_dataset
from notbugs.api import make_nonrobust as make_nonrobust
from notbugs.api import make_robust as make_robust
from notbugs.api import relabel as relabel
from notbugs.api import score_files as score_files
from notbugs.api import study as _study
from notbugs.api import train as _train

# Functions that are also packages. The types in them: `from notbugs.train import fit`, or `import notbugs.train as train`.

class _Train(ModuleType):
    __call__ = staticmethod(_train)
    def __getattr__(self, name: str) -> Any: ...

class _Audit(ModuleType):
    __call__ = staticmethod(_audit)
    def __getattr__(self, name: str) -> Any: ...

class _Study(ModuleType):
    __call__ = staticmethod(_study)
    def __getattr__(self, name: str) -> Any: ...

train: _Train
audit: _Audit
study: _Study
__version__: str
