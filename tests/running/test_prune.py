import pytest

from efficientnet_finetuning.running.prune import prune


def write(folder, size: int) -> None:
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(bytes(size))
    (folder / "commit.json").write_text("{}")


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


@pytest.mark.parametrize("place", ["06_models/job/finetune_checkpoints", "03_primary/job/preprocessing_checkpoints"])
def test_checkpoints_of_what_ran_last_stay(tmp_path, place):
    for key in ("a", "b", "c"):
        (tmp_path / place / key).mkdir(parents=True)
    assert prune(tmp_path, keep_versions=1)[0] == 2
