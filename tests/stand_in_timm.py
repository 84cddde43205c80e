"""A package called timm with small networks, for tests where timm itself is not installed.

`tiny` has 10 outputs; `wide` 1,000, with two names of ImageNet; `nameless` 1,000 without names.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAND_IN = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.norm, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, num_classes)
        self.pretrained_cfg = {"label_names": [f"label {number}" for number in range(num_classes)]}
    def forward(self, images):
        if images.shape[2] < 8:
            raise ValueError("too small")
        return self.fc(self.norm(self.stem(images)).relu().mean((2, 3)))

def create_model(name, pretrained=False, num_classes=None):
    if name in ("wide", "nameless"):
        network = Network(1000)
        names = [f"n{number}" for number in range(1000)]
        names[151], names[281] = "Chihuahua", "tabby, tabby cat"
        network.pretrained_cfg = {"label_names": names} if name == "wide" else {}
        return network
    num_classes = num_classes or 10
    if name != "tiny":
        raise RuntimeError(f"Unknown model ({name})")
    network = Network(num_classes)
    if pretrained:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            whole = Network(10)
        network.stem.load_state_dict(whole.stem.state_dict())
        if num_classes == 10:
            network.fc.load_state_dict(whole.fc.state_dict())
    return network

def get_pretrained_cfg(name, allow_unregistered=True):
    return None

class data:
    @staticmethod
    def resolve_model_data_config(network):
        return {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "input_size": (3, 12, 12), "interpolation": "bilinear"}
"""


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Meanwhile `import timm` gives the stand-in, written to a folder."""
    (folder / "timm.py").write_text(STAND_IN)
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "timm"}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("timm", None)
        sys.modules.update(kept)
