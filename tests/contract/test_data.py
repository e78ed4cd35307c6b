"""Data files are found where promised, verified, and parsed into what the docstrings say."""

import dataclasses
import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
import torch

from hiso_bench import datafiles
from hiso_bench.datafiles import DataError
from vision import data

NAME = "set/file.bin"
CONTENT = b"some bytes"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An empty world: $HISO_BENCH_DATA unset, the working folder and the user cache empty."""
    monkeypatch.delenv(datafiles.ENV, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return {"env": tmp_path / "env", "data": work / "data", "cache": tmp_path / "cache" / "hiso_bench"}


def put(folder, content=CONTENT, name=NAME):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


def load_or_skip(name):
    """The data set, where this machine has its files."""
    if not data.available(name):
        pytest.skip("needs HISO_BENCH_DATA")
    return data.load(name)


# Finding


@pytest.mark.parametrize("place", ["env", "data", "cache"])
def test_a_file_is_found_in_each_place(folders, monkeypatch, place):
    path = put(folders[place])
    if place == "env":
        monkeypatch.setenv(datafiles.ENV, str(folders["env"]))
    assert datafiles.find(NAME, SHA).samefile(path)
    assert datafiles.available(NAME, SHA)


def test_the_variable_goes_before_data_before_the_cache(folders, monkeypatch):
    paths = [put(folders[place]) for place in ("env", "data", "cache")]
    monkeypatch.setenv(datafiles.ENV, str(folders["env"]))
    for path in paths:
        assert datafiles.find(NAME, SHA).samefile(path)
        path.unlink()
    assert not datafiles.available(NAME, SHA)


def test_a_missing_file_is_one_line_naming_what_where_and_what_to_do(folders):
    with pytest.raises(DataError) as error:
        datafiles.find(NAME, SHA)
    message = one_line(error)
    assert NAME in message
    assert str(folders["data"]) in message
    assert str(folders["cache"]) in message
    assert "set HISO_BENCH_DATA" in message


def test_a_missing_env_folder_is_named_even_where_the_file_is_elsewhere(folders, monkeypatch):
    put(folders["data"])
    monkeypatch.setenv(datafiles.ENV, "/no/such/folder")
    for ask in (datafiles.find, datafiles.available):
        with pytest.raises(DataError, match="HISO_BENCH_DATA=/no/such/folder is not") as error:
            ask(NAME, SHA)
        one_line(error)


def test_a_wrong_hash_is_an_error_and_not_a_reason_to_look_further(folders):
    wrong = put(folders["data"], b"other bytes")
    put(folders["cache"])
    assert not datafiles.available(NAME, SHA)
    with pytest.raises(DataError, match=f"expected {SHA}") as error:
        datafiles.find(NAME, SHA)
    assert str(wrong) in one_line(error)


def test_a_changed_file_is_verified_again(folders):
    path = put(folders["data"])
    assert datafiles.available(NAME, SHA)
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    assert not datafiles.available(NAME, SHA)


def test_a_file_is_hashed_once(folders, monkeypatch):
    put(folders["data"])
    datafiles.find(NAME, SHA)
    monkeypatch.setattr(datafiles.hashlib, "file_digest", None)
    datafiles.find(NAME, SHA)


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../x", "a/../../x"])
def test_names_outside_the_data_folders_are_refused(folders, name):
    with pytest.raises(ValueError, match="relative_name"):
        datafiles.find(name, SHA)


# Downloading, from file: addresses, so that no network is needed


def test_a_download_lands_in_the_cache_and_is_found_there(folders, tmp_path):
    url = put(tmp_path / "remote").as_uri()
    path = datafiles.find(NAME, SHA, [url])
    assert path == folders["cache"] / NAME
    assert path.read_bytes() == CONTENT
    assert datafiles.find(NAME, SHA).samefile(path)


def test_a_bad_mirror_is_passed_over_and_nothing_temporary_stays(folders, tmp_path):
    missing = (tmp_path / "nowhere").as_uri()
    wrong = put(tmp_path / "wrong", b"wrong").as_uri()
    right = put(tmp_path / "remote").as_uri()
    path = datafiles.find(NAME, SHA, [missing, wrong, right])
    assert os.listdir(path.parent) == [path.name]


def test_failed_downloads_are_reported_on_one_line_and_leave_nothing(folders, tmp_path):
    missing = (tmp_path / "nowhere").as_uri()
    wrong = put(tmp_path / "wrong", b"wrong").as_uri()
    with pytest.raises(DataError) as error:
        datafiles.find(NAME, SHA, [missing, wrong])
    message = one_line(error)
    assert missing in message
    assert f"{wrong}: sha256 is" in message
    assert "set HISO_BENCH_DATA" in message
    assert os.listdir((folders["cache"] / NAME).parent) == []


def test_without_any_answer_no_folder_is_made(folders, tmp_path):
    with pytest.raises(DataError):
        datafiles.find(NAME, SHA, [(tmp_path / "nowhere").as_uri()])
    assert not folders["cache"].exists()


def test_available_never_downloads(folders, monkeypatch):
    monkeypatch.setattr(datafiles, "_download", None)
    assert not datafiles.available(NAME, SHA)


# The idx format


def idx(array, magic=None):
    header = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 28 * 28).astype(np.uint8).reshape(3, 28, 28)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def test_idx_bytes_parse_to_their_array():
    assert np.array_equal(data.parse_idx(idx(IMAGES), 3, "f"), IMAGES)
    assert np.array_equal(data.parse_idx(idx(LABELS), 1, "f"), LABELS)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "starts with bytes none, expected 00000801"),
        (idx(LABELS, magic=b"\x00\x00\x0d\x01"), "starts with bytes 00000d01, expected 00000801"),
        (idx(IMAGES), "starts with bytes 00000803, expected 00000801"),
        (idx(LABELS)[:6], "ends within its header, 6 of 8 bytes"),
        (idx(LABELS)[:-1], "holds 2 bytes of data, expected 3 for dimensions 3"),
        (idx(LABELS) + b"x", "holds 4 bytes of data, expected 3"),
    ],
)
def test_damaged_idx_bytes_are_refused_with_the_reason(raw, says):
    with pytest.raises(DataError, match=f"^labels.gz {says}") as error:
        data.parse_idx(raw, 1, "labels.gz")
    one_line(error)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (gzip.compress(idx(IMAGES), mtime=0)[:-12], gzip.compress(idx(LABELS), mtime=0), "x.gz cannot be unpacked"),
        (idx(IMAGES), gzip.compress(idx(LABELS), mtime=0), "x.gz cannot be unpacked"),
        (gzip.compress(idx(IMAGES), mtime=0), gzip.compress(idx(LABELS[:2]), mtime=0), "3 images, .* 2 labels"),
        (gzip.compress(idx(IMAGES), mtime=0), gzip.compress(idx(LABELS + np.uint8(1)), mtime=0), "label 10, expected 0 to 9"),
    ],
)
def test_damaged_pairs_are_refused_with_the_reason(tmp_path, images, labels, says):
    with pytest.raises(DataError, match=says) as error:
        data.read_pair(put(tmp_path, images, "x.gz"), put(tmp_path, labels, "y.gz"))
    one_line(error)


def test_an_idx_set_loads_from_its_folder_normalised(folders, monkeypatch):
    files = {}
    for name in data._IDX_SETS["mnist"].sha256:
        content = gzip.compress(idx(IMAGES if "images" in name else LABELS), mtime=0)
        put(folders["env"] / "mnist", content, name)
        files[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setenv(datafiles.ENV, str(folders["env"]))
    monkeypatch.setitem(data._IDX_SETS, "mnist", dataclasses.replace(data._IDX_SETS["mnist"], sha256=files))
    assert data.available("mnist")
    loaded = data._idx("mnist")
    expected = (torch.from_numpy(IMAGES.astype(np.float64)) / 255 - 0.1307) / 0.3081
    assert loaded.train_x.shape == (3, 1, 28, 28)
    assert torch.allclose(loaded.train_x[:, 0].double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(loaded.test_y, torch.tensor([7, 0, 9]))


# The data sets


def test_an_unknown_data_set_is_an_error_naming_the_known_ones():
    for ask in (data.load, data.available):
        with pytest.raises(ValueError, match="'cifar'; allowed: mnist, fashion, digits"):
            ask("cifar")


def test_digits_need_no_files_and_leave_global_randomness_alone(folders):
    before, before_torch = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    loaded = data._digits()
    assert data.available("digits")
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before_torch, torch.get_rng_state())
    assert loaded.train_x.shape == (1438, 1, 8, 8)
    assert loaded.test_x.shape == (359, 1, 8, 8)
    assert abs(loaded.train_x.mean()) < 1e-5
    assert abs(loaded.train_x.std() - 1) < 1e-3


def test_the_digits_split_is_stratified_and_pinned():
    loaded = data.load("digits")
    train, test = (torch.bincount(y, minlength=10) for y in (loaded.train_y, loaded.test_y))
    assert ((test / (train + test) - 0.2).abs() < 0.005).all()
    # Of the labels in order, which change with the split or with the data that scikit-learn ships.
    labels = torch.cat([loaded.train_y, loaded.test_y]).numpy().astype(np.uint8).tobytes()
    assert hashlib.sha256(labels).hexdigest().startswith("efe990930901440463a5d06127ddd69e")


@pytest.mark.parametrize("name", data.NAMES)
def test_every_data_set_keeps_the_promised_shapes(name):
    loaded = load_or_skip(name)
    assert loaded is data.load(name)
    assert (loaded.name, loaded.classes) == (name, 10)
    assert "\n" not in loaded.source
    for x, y in ((loaded.train_x, loaded.train_y), (loaded.test_x, loaded.test_y)):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.shape[0] == len(y)
        assert x.shape[1] == 1
        assert set(y.unique().tolist()) == set(range(10))
    assert abs(loaded.train_x.mean()) < 1e-3
    assert abs(loaded.train_x.std() - 1) < 1e-3


@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_idx_sets_have_the_published_sizes(name):
    loaded = load_or_skip(name)
    assert loaded.train_x.shape == (60000, 1, 28, 28)
    assert loaded.test_x.shape == (10000, 1, 28, 28)
