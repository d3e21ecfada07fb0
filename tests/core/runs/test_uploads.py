"""Data of forms is removed when nothing needs it any more."""

import os
import time

from llf_core.runs import clean, create_run, find_cleanable
from llf_core.runs.uploads import DAY, UPLOADS, mark_used, unused_uploads

NEW, OLD = 1, 8


def upload(home, name, days):
    path = home / UPLOADS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    os.utime(path, times := (time.time() - days * DAY,) * 2)
    return path, times


def test_what_no_run_names_and_no_form_uses_goes_after_a_week(llf_home):
    free, _ = upload(llf_home, "rows-0.parquet", OLD)
    named, _ = upload(llf_home, "rows-1.parquet", OLD)
    binned, _ = upload(llf_home, "größe, 2.jsonl", OLD)
    new, _ = upload(llf_home, "rows-3.parquet", NEW)
    used, _ = upload(llf_home, "rows-4.parquet", OLD)
    elsewhere = llf_home / "rows-5.parquet"
    elsewhere.touch()
    create_run(f"dataset: {named}\n", "first")
    run = create_run(f'eval_dataset: ["{binned}"]\n'.replace("ö", "\\xf6"), "second")
    (llf_home / "bin").mkdir()
    run.path.rename(llf_home / "bin" / run.id)
    mark_used(llf_home, ["llf_demo", "", str(used), str(elsewhere), f"{UPLOADS}/gone.jsonl"])
    assert unused_uploads(llf_home) == [free]
    assert find_cleanable(days=30).bytes == 5
    assert clean(days=30).items == (free,)
    assert not free.exists()
    assert all(path.exists() for path in (named, binned, new, used))
    assert find_cleanable(days=30).items == ()


def test_a_config_that_is_no_yaml_any_more_keeps_its_files(llf_home):
    named, _ = upload(llf_home, "rows-1.parquet", OLD)
    create_run("", "cut").config.write_text(f"dataset: {named}\nmodel_name_or_path: 'cut")
    assert unused_uploads(llf_home) == []
