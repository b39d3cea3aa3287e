import pytest

from efficientnet_finetuning.running.prune import prune
from efficientnet_finetuning.storage import commit, note_use, versions


def write(folder, size: int, made_from: dict[str, str] | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(bytes(size))
    (folder / folder.parent.name).write_bytes(bytes(10))
    commit(folder, folder.with_name(f"{folder.name}-new"), {"recipe": {"versions": made_from or {}}})
    folder.with_name(f"{folder.name}-new").rename(folder)


def test_the_newest_versions_of_each_dataset_stay(tmp_path):
    for dataset in ("02_intermediate/job/manifest.csv", "06_models/job/model.keras"):
        for version in ("2026-01-01", "2026-01-02", "2026-01-03"):
            write(tmp_path / dataset / version, 1_000)
    write(tmp_path / "01_raw" / "set" / "cifar10" / "1.0.0", 1_000)
    count, freed = prune(tmp_path, keep_versions=2)
    assert count == 2
    assert freed >= 2_000
    left = sorted(path.name for path in tmp_path.glob("0[2-8]*/job/*/*"))
    assert left == ["2026-01-02", "2026-01-02", "2026-01-03", "2026-01-03"]
    assert (tmp_path / "01_raw" / "set" / "cifar10" / "1.0.0" / "file").is_file(), "what is the user's stays"
    assert prune(tmp_path, keep_versions=2) == (0, 0)


def test_what_is_in_use_stays_and_what_it_was_made_from(tmp_path):
    manifest, features, model = (
        tmp_path / place
        for place in (
            "02_intermediate/job/manifest.csv",
            "04_feature/job/transfer_features",
            "06_models/job/model.keras",
        )
    )
    for day in range(1, 6):
        write(manifest / f"2026-01-0{day}", 10)
    write(features / "2026-01-02", 10, {"manifest": "2026-01-02"})
    write(model / "2026-01-03", 10, {"transfer.features": "2026-01-02"})
    write(model / "2026-01-04", 10)
    note_use(model, "2026-01-03", "2026-01-05")
    assert versions(model) == ["2026-01-03", "2026-01-04"]
    prune(tmp_path, keep_versions=1)
    assert versions(model) == ["2026-01-03"], "the one that was used last"
    assert versions(features) == ["2026-01-02"]
    assert versions(manifest) == ["2026-01-05", "2026-01-02"], "the model was made from one of them"


@pytest.mark.parametrize("place", ["06_models/job/finetune_checkpoints", "03_primary/job/preprocessing_checkpoints"])
def test_checkpoints_of_what_ran_last_stay(tmp_path, place):
    for key in ("a", "b", "c"):
        (tmp_path / place / key).mkdir(parents=True)
    assert prune(tmp_path, keep_versions=1)[0] == 2
