from notbugs.api import attack as attack
from notbugs.api import load_dataset as load_dataset
from notbugs.api import make_nonrobust as make_nonrobust
from notbugs.api import make_robust as make_robust
from notbugs.api import relabel as relabel
from notbugs.api import score_files as score_files

__version__: str
