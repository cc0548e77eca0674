"""The dataset `csv`: tables and JSON lines, what their cells mean, and faults with file and line."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segreg.config.sections import Split
from segreg.data.split import divide
from segreg.errors import SegregError
from segreg_plugins.datasets.csv_manifest import csv_manifest, recognise_csv

REAL = os.environ.get("SEGREG_REAL_DATA")


@pytest.fixture
def data(tmp_path):
    """A folder with the images i/1.png to i/3.png and their masks m/1.png to m/3.png."""
    for folder in ("i", "m"):
        (tmp_path / folder).mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (3, 2)).save(tmp_path / f"i/{number}.png")
        Image.fromarray(np.array([[0, 255, 0], [0, 0, 255]], np.uint8)).save(tmp_path / f"m/{number}.png")
    return tmp_path


def table(folder: Path, text: str, name="table.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def samples(*where, **settings):
    return [(s.id, s.group, s.split) for s in csv_manifest(manifest=table(*where), **settings).samples]


def refusal(*words: str, count: int | None = None, **settings) -> SegregError:
    with pytest.raises(SegregError) as caught:
        csv_manifest(**settings)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert count is None or len(caught.value.problems) == count
    return caught.value


def test_all_columns(data):
    text = "id,image,mask,split,group,age\nx,i/1.png,m/1.png,train,p1,40\ny,i/2.png,m/2.png,Validation,,50\n"
    dataset = csv_manifest(manifest=table(data, text + "z,i/3.png,m/3.png,TEST,p2,\n"))
    assert [(s.id, s.group, s.split) for s in dataset.samples] == [
        ("x", "p1", "train"),
        ("y", None, "val"),
        ("z", "p2", "test"),
    ]
    assert dataset.samples[0].image == data / "i/1.png"
    assert dataset.read_mask(dataset.samples[0]).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert dataset.read_image(dataset.samples[0]).shape == (2, 3, 3)
    assert dataset.task.mode == "binary"
    assert len(pickle.loads(pickle.dumps(dataset)).samples) == 3


@pytest.mark.parametrize(
    "text",
    [
        "image,mask\ni/1.png,m/1.png\ni/2.png,m/2.png\n",
        "\ufeffimage;mask\r\ni/1.png;m/1.png\r\ni/2.png;m/2.png\r\n",
        "Image\tMASK\ni/1.png\tm/1.png\n\n\t\ni/2.png\tm/2.png",
        '"mask" , "image"\n"m/1.png",i/1.png\nm/2.png, i/2.png \n'.replace('" , "', '","'),
        'note,image,mask\n"a, b\nc",i/1.png,m/1.png\n,i\\2.png,m\\2.png\n',
    ],
    ids=["plain", "windows", "tabs", "quotes", "notes"],
)
def test_tables_of_all_dialects(data, text):
    assert samples(data, text) == [("1", None, None), ("2", None, None)]


def test_json_lines(data):
    lines = [
        {"image": "i/1.png", "mask": "m/1.png", "group": 7, "tags": ["x"]},
        {"image": "i/2.png", "mask": "m/2.png"},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    assert samples(data, text, "table.jsonl") == [("1", "7", None), ("2", None, None)]
    assert samples(data, text, "table.ndjson") == [("1", "7", None), ("2", None, None)]


def test_columns_may_be_called_otherwise_and_paths_start_elsewhere(data):
    (data / "tables").mkdir()
    text = "path,truth,patient\n1.png,../m/1.png,p\n"
    columns = {"image": "path", "mask": "truth", "group": "patient"}
    found = csv_manifest(manifest=table(data / "tables", text), columns=columns, root=data / "i")
    assert [(s.id, s.group) for s in found.samples] == [("1", "p")]
    absolute = f"image,mask\n{data}/i/1.png,{data}/m/1.png\n"
    assert samples(data / "tables", absolute) == [("1", None, None)]


def test_images_of_one_name_are_reported_apart_by_their_paths(data):
    (data / "j").mkdir()
    Image.new("RGB", (3, 2)).save(data / "j/1.png")
    ids = [name for name, _, _ in samples(data, "image,mask\ni/1.png,m/1.png\nj/1.png,m/1.png\ni/2.png,m/2.png\n")]
    assert ids == ["i__1.png", "j__1.png", "2"]


def test_ids_are_the_same_wherever_the_folder_lies_and_however_it_is_named(data, monkeypatch):
    (data / "j").mkdir()
    Image.new("RGB", (3, 2)).save(data / "j/1.png")
    manifest = table(data, "image,mask\ni/1.png,m/1.png\nj/1.png,m/1.png\n")
    monkeypatch.chdir(data)
    for named in (manifest, Path(manifest.name)):
        assert [sample.id for sample in csv_manifest(manifest=named).samples] == ["i__1.png", "j__1.png"]


def test_a_column_of_other_subsets_is_not_taken_for_the_split(data):
    table(data, "image,mask,subset\ni/1.png,m/1.png,fold 1\ni/2.png,m/2.png,fold 2\n")
    (found,) = recognise_csv(data)
    assert "columns" not in found.settings
    table(data, "image,mask,subset\ni/1.png,m/1.png,train\ni/2.png,m/2.png,Val\n")
    assert recognise_csv(data)[0].settings["columns"] == {"split": "subset"}


def test_groups_and_splits_serve_the_split(data):
    text = "image,mask,group\ni/1.png,m/1.png,a\ni/2.png,m/2.png,a\ni/3.png,m/3.png,b\n"
    dataset = csv_manifest(manifest=table(data, text))
    splits = divide(dataset, Split(val=0.34, test=0.0))
    assert sorted(len(indices) for indices in splits.values()) == [0, 1, 2]
    text = "image,mask,split\ni/1.png,m/1.png,train\ni/2.png,m/2.png,val\ni/3.png,m/3.png,test\n"
    dataset = csv_manifest(manifest=table(data, text))
    assert divide(dataset, Split()) == {"train": [0], "val": [1], "test": [2]}


def test_masks_follow_the_rules_of_folders(data):
    tifffile.imwrite(data / "m/16.tif", np.array([[0, 300], [2, 1]], np.uint16))
    tifffile.imwrite(
        data / "i/bands.tif", np.zeros((2, 2, 6), np.uint16), planarconfig="contig", photometric="minisblack"
    )
    manifest = table(data, "image,mask\ni/bands.tif,m/16.tif\n")
    numbered = csv_manifest(manifest=manifest, foreground="nonzero")
    assert numbered.read_mask(numbered.samples[0]).tolist() == [[0, 1], [1, 1]]
    bands = numbered.read_image(numbered.samples[0])
    assert (bands.shape, bands.dtype) == ((2, 2, 6), np.uint16)
    several = csv_manifest(manifest=manifest, classes=("a", "b", "c"), ignore_index=300)
    assert several.read_mask(several.samples[0]).tolist() == [[0, 255], [2, 1]]
    assert several.task.mode == "multiclass"
    plain = csv_manifest(manifest=manifest, classes=("a", "b", "c"))
    with pytest.raises(SegregError, match="holds the value 300, and 3 classes"):
        plain.read_mask(plain.samples[0])
    refusal("ignore_index: 0 is the background", manifest=manifest, ignore_index=0)
    refusal('1 is the number of the class "b"', manifest=manifest, classes=("a", "b"), ignore_index=1)
    refusal("foreground: nonzero is for one class", manifest=manifest, classes=("a", "b"), foreground="nonzero")
    readers = [
        csv_manifest(manifest=manifest, **s).reader for s in ({}, {"foreground": "nonzero"}, {"classes": ("a", "b")})
    ]
    assert len(set(readers)) == 3


# Faults


def test_faults_in_rows_are_reported_with_their_lines(data):
    text = (
        "image,mask,split,id\ni/1.png,m/1.png,train,a\n\ni/4.png,m/1.png,train,b\ni/2.png,,train,c\ni,m/2.png,trian,d\n"
        "i/2.png,m/2.png,,e\ni/3.png,m/3.png,val,e/f\ni/3.png,m/3.png,val,\n"
    )
    manifest = table(data, text)
    refusal(
        f"{manifest}:4: image: {data}/i/4.png is not there",
        f"{manifest}:5: names no mask",
        f"{manifest}:6: image: {data}/i is a folder",
        f'{manifest}:6: split: "trian" is not a split\n  did you mean "train"',
        f"{manifest}:7: says no split",
        f'{manifest}:8: id: "e/f" has a slash',
        f"{manifest}:9: has no id",
        manifest=manifest,
        count=7,
    )
    manifest = table(data, "image,mask,id\ni/1.png,m/1.png,a\ni/1.png,m/1.png,b\ni/2.png,m/2.png,a\n")
    refusal(
        f'{manifest}:3: image: "{data}/i/1.png" stands already in line 2',
        f'{manifest}:4: id: "a" stands already in line 2',
        manifest=manifest,
        count=2,
    )
    manifest = table(data, "image,mask\ni/1.PNG,m/1.png\nk/1.png,m/1.png\n")
    refusal('did you mean "1.png"', f"there is no folder {data}/k", manifest=manifest)
    manifest = table(data, f"image,mask\ni/1.png,{'1 2 ' * 200}\n")  # a run-length encoding
    refusal(f"{manifest}:2: mask: ", "is not there", manifest=manifest)
    assert recognise_csv(data) == []
    manifest = table(data, "image,mask\n" + "x.png,y.png\n" * 15)
    refusal("and 10 more things are wrong", manifest=manifest, count=21)


def test_lines_are_counted_where_fields_hold_line_ends(data):
    manifest = table(data, 'note,image,mask\n"a\nb",i/1.png,m/1.png\nc,gone.png,m/2.png\n')
    refusal(f"{manifest}:4: image: ", manifest=manifest)
    manifest = table(data, "image,mask\ni/1.png,m/1.png\ni/2.png,m/2.png,more\n")
    refusal(f'{manifest}:3: has 3 fields, and the header has 2: "image" and "mask"', manifest=manifest)
    manifest = table(data, 'image,mask\ni/1.png,m/1.png\n"i/2.png,m/2.png\n')
    refusal(f"{manifest}:3: is not a CSV (", manifest=manifest)


def test_faults_in_the_header_are_reported(data):
    manifest = table(data, "images,mask\ni/1.png,m/1.png\n")
    refusal(
        f'{manifest}: has no column "image"',
        'did you mean "images"?',
        'its columns are "images" and "mask"; set columns: {image: ...}',
        manifest=manifest,
    )
    refusal('has no column "truth"', manifest=table(data, "image,mask\n"), columns={"mask": "truth"})
    refusal('has no column "patient"', manifest=table(data, "image,mask\n"), columns={"group": "patient"})
    for column, meant in (("splits", "split"), ("group_id", "group")):
        manifest = table(data, f"image,mask,{column}\ni/1.png,m/1.png,train\n")
        refusal(f'the column "{column}" may be meant as {meant}', f"columns: {{{meant}: {column}}}", manifest=manifest)
    refusal('the header has "Mask" and "mask" twice', manifest=table(data, "image,mask,Mask\n"))
    refusal("has no rows", manifest=table(data, "image,mask\n\n"))


def test_a_table_that_is_not_there_is_reported(data, monkeypatch):
    monkeypatch.chdir(data)
    own = "the table is your own: a header with image and mask, and a row for each image"
    table(data, "image,mask\n")
    said = refusal(manifest=data / "tables.csv")
    assert str(said) == f'manifest: {data}/tables.csv is not there\n  did you mean "table.csv"?\n  {own}'
    said = refusal(manifest=Path("none/table.csv"))
    assert str(said) == (
        "manifest: none/table.csv is not there\n  there is no folder none\n"
        f"  a relative path starts from the folder that segreg runs in, {data}\n  {own}"
    )
    assert str(refusal(manifest=data / "i")) == f"manifest: {data}/i is a folder\n  {own}"


def test_files_that_are_no_tables_are_reported(data):
    refusal("is empty", manifest=table(data, "\n \n"))
    refusal("holds JSON", ".jsonl", manifest=table(data, '{"image": "a"}'))
    (data / "latin.csv").write_bytes("image,mask\ni/1.png,m/é.png\n".encode("latin-1"))
    refusal(f"{data}/latin.csv:2: is not a UTF-8 text", manifest=data / "latin.csv")
    refusal(f"{data}/t.jsonl:2:14: is not a JSON", manifest=table(data, '{"image": "a"}\n{"image": "a"', "t.jsonl"))
    refusal(f"{data}/t.jsonl:1: holds no JSON object", manifest=table(data, '["a"]', "t.jsonl"))
    refusal("each line holds one whole object", manifest=table(data, '[\n{"image": "a"}\n]', "t.jsonl"))


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="SEGREG_REAL_DATA is not set")
def test_real_16_bit_images(tmp_path):
    folder = Path(REAL or "") / "nonrgb/uint16_instances"
    files = sorted(path for path in folder.rglob("*.tif*"))
    mask = next(path for path in files if "mask" in str(path.relative_to(folder)))
    image = next(path for path in files if path != mask)
    manifest = table(tmp_path, f"image,mask\n{image},{mask}\n")
    dataset = csv_manifest(manifest=manifest, foreground="nonzero")
    pixels, labels = dataset.read_image(dataset.samples[0]), dataset.read_mask(dataset.samples[0])
    assert (pixels.dtype, pixels.shape) == (np.uint16, labels.shape)
    assert set(np.unique(labels)) == {0, 1}
    assert tifffile.imread(mask).max() == 183
