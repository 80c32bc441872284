"""An index handed to LanceDB: all of it, found again by an approximate index, as the exact scan finds it."""

from pathlib import Path

import numpy as np
import pytest

from clip_search.exchange.exporting import export_index
from clip_search.scan.codes import Codes
from clip_search.scan.exact import nearest
from clip_search.store.database import Database, Row
from clip_search.store.identity import EncoderIdentity
from clip_search.store.opening import DATABASE
from clip_toolkit.errors import OutputError

lancedb = pytest.importorskip("lancedb", reason="needs the lance extra")
pytest.importorskip("pyarrow", reason="needs the lance extra")
from lancedb.index import IvfPq  # noqa: E402  # behind the skip

ROWS, DIM, K = 4000, 64, 10


@pytest.fixture
def vectors() -> np.ndarray:
    """Clusters of unit vectors, float16."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(40, DIM))
    rows = centres[rng.integers(0, 40, ROWS)] + 0.5 * rng.normal(size=(ROWS, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def index(vectors: np.ndarray, tmp_path: Path) -> Path:
    identity = EncoderIdentity("somebody/tiny", None, "pooled", DIM)
    database = Database(tmp_path / DATABASE, 1)
    with database.writing():
        database.set_meta("encoder", identity.to_json())
        database.set_meta("probe", vectors[0].tobytes())
        database.put(
            Row(f"{number:05}.jpg", 0, 0, 0, b"", vector.tobytes(), None) for number, vector in enumerate(vectors)
        )
    database.close()
    return tmp_path


def test_the_nearest_of_the_exact_scan_are_found(index: Path, vectors: np.ndarray, tmp_path: Path):
    assert export_index(index, tmp_path / "images.lance") == ROWS
    table = lancedb.connect(tmp_path).open_table("images")
    table.create_index("embedding", config=IvfPq(distance_type="dot", num_partitions=8, num_sub_vectors=16))
    codes, found = Codes.of(vectors), 0
    for query in vectors[::200].astype(np.float32):
        rows, _ = nearest(vectors, codes, query, K)
        hits = table.search(query, vector_column_name="embedding").distance_type("dot").nprobes(4).refine_factor(10)
        names = {hit["path"] for hit in hits.limit(K).to_list()}
        found += len(names & {f"{row:05}.jpg" for row in rows.tolist()})
    assert found / (K * len(vectors[::200])) > 0.9
    with pytest.raises(OutputError, match="is there already"):
        export_index(index, tmp_path / "images.lance")
