"""The metrics file after a kill."""

from pathlib import Path

from training.journal import truncate_metrics


def test_what_came_after_the_step_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    truncate_metrics(file, 3)
    assert not file.exists()
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    truncate_metrics(file, 2)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
    truncate_metrics(file, 0)
    assert file.read_text() == ""
