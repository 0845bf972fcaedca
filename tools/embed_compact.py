"""Put a trained encoder into the package: python tools/embed_compact.py student.safetensors [compact|narrow]."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path

from nst_lightning.distillation.storage import LARGEST_FILE

FEATURES = Path(__file__).parent.parent / "nst_lightning" / "features"


def main(source: Path, kind: str = "compact") -> None:
    """Copy the file and write down its SHA-256."""
    size = source.stat().st_size
    if size > LARGEST_FILE:
        sys.exit(f"student: must be at most {LARGEST_FILE} bytes, got {size}; make it narrower")
    shutil.copyfile(source, FEATURES / f"{kind}_vgg19.safetensors")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    module = FEATURES / "compact.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(re.sub(rf'"{kind}": "[0-9a-f]{{64}}"', f'"{kind}": "{digest}"', text), encoding="utf-8")
    print(f"{size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
