"""The manifests of the versions that may answer."""

from pathlib import Path

from clicv2 import contract
from clicv2.contract import Manifest
from clicv2.errors import ContractError
from clicv2.spec import PreprocessSpec
from service.errors import NotReady


class Catalog:
    """Reads manifests from a model's folder as its versions turn up: a new one answers without a restart here.

    Attributes:
        current: of the version that answered last; before the first answer, of the one that is expected to.
        preprocess: how pictures are prepared, for as long as the process lives.
    """

    def __init__(self, model: Path, version: int | None = None) -> None:
        """Raises ContractError when `version` (None: the highest) is not there."""
        self.current = contract.find_version(model, version).manifest
        self.preprocess: PreprocessSpec = self.current.preprocess
        self._model = model
        self._known = {self.current.version: self.current}

    def answered(self, version: int) -> Manifest:
        """The manifest of the version that has just answered.

        Raises NotReady when its answers mean nothing here: its manifest is missing, or it was made for
        pictures that are prepared otherwise.
        """
        if version != self.current.version:
            self.current = self._known.get(version) or self._read(version)
        return self.current

    def _read(self, version: int) -> Manifest:
        try:
            manifest = contract.find_version(self._model, version).manifest
        except ContractError as error:
            raise NotReady(f"version {version} answers, of which nothing is known here: {error}") from error
        ours = self.preprocess.fingerprint()
        if manifest.fingerprint != ours:
            raise NotReady(
                f"version {version} answers, which wants the preprocessing {manifest.fingerprint}; "
                f"pictures are prepared as {ours} until this process is restarted"
            )
        self._known[version] = manifest
        return manifest
