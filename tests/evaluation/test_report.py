"""The report of made-up results: every case gives a whole page that needs nothing but itself."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.evaluation.calibration import judge_threshold
from efficientnet_finetuning.evaluation.change import change_since
from efficientnet_finetuning.evaluation.comparison import compare_regimes
from efficientnet_finetuning.evaluation.metrics import classification_metrics, confusion, predictions_table
from efficientnet_finetuning.evaluation.pictures import (
    disagreements,
    fit_name,
    gallery,
    worth_a_look,
)
from efficientnet_finetuning.evaluation.report import Results, render_report
from efficientnet_finetuning.evaluation.thumbnails import examples_of_classes, thumbnails
from efficientnet_finetuning.evaluation.verdict import judge

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_VOID = {"meta", "img", "link", "br", "input", "hr"}
_WEBP = "data:image/webp;base64,"


class Page(HTMLParser):
    """A parsed page, which must be well nested."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def attributes(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "png")
    return buffer.getvalue()


def results(
    logits: dict[str, np.ndarray], targets: np.ndarray, names: list[str], figures: dict | None = None
) -> Results:
    labels = np.eye(len(names), dtype=np.uint8)[targets]
    ids = np.array([f"photos/{row}.jpg" for row in range(len(targets))])
    predictions = {regime: predictions_table(values, labels, ids, names) for regime, values in logits.items()}
    metrics = {
        regime: classification_metrics(values, labels, names)
        | {"flip": True, "threshold": judge_threshold(predictions[regime], predictions[regime], 0.9)}
        for regime, values in logits.items()
    }
    history = pd.DataFrame({"seconds": [2.0], "images": [50], "val_accuracy": [0.5], "accuracy": [0.5], "kept": [True]})
    histories = {regime: history.assign(peak_memory_gb=1.5, device="CPU (2 cores)") for regime in logits}
    comparison = compare_regimes(metrics, histories)
    seconds = dict(zip(comparison["regime"], comparison["training_seconds"], strict=True))
    cost = {"parameters": 3_400_000, "gflops": 0.77, "file_megabytes": 14.0}
    cost |= {"milliseconds_per_image_batch_1": 12.0, "milliseconds_per_image_batch_64": 5.0}
    node = {"seconds": 4.0, "peak_memory_gb": 0.5, "device": "CPU (2 cores)"}
    costs = {"ingestion.look_at_images": node, "finetune.evaluate_classifier": node | {"device": "GPU (one)"}}
    return Results(
        comparison=comparison,
        verdict=judge(predictions, seconds),
        change={"all": None, "differences": [], "words": "No earlier run is stored."},
        audit={
            "source": "photos",
            "images": 60,
            "used": 57,
            "classes": {name: {"train": 3, "validation": 1, "test": 2} for name in names},
            "warnings": [],
        },
        metrics=metrics,
        predictions=predictions,
        images=images_of(len(targets)),
        histories=histories,
        costs=costs,
        model_cost=cost,
        review={},
        figures={"comparison_bars": png("red")} if figures is None else figures,
        run={"command": "kedro run --env folder", "version": "2026-11-29T05.19.02.253Z", "commit": "abc123"},
        parameters={"dataset.name": None, "dataset.path": "/home/ada/photos", "backbone.name": "EfficientNetLite0"},
        seed=0,
    )


def images_of(count: int) -> np.ndarray:
    """A colour for each row."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), np.uint8)
    return np.broadcast_to(colours, (count, 24, 24, 3))


def noisy(targets: np.ndarray, num_classes: int, strength: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(len(targets), num_classes))
    return (noise + strength * np.eye(num_classes)[targets]).astype(np.float32)


def case(num_classes: int, count: int, regimes=("baseline", "transfer", "finetune")) -> Results:
    targets = np.arange(count) % num_classes
    logits = {regime: noisy(targets, num_classes, 1.5 * step, step) for step, regime in enumerate(regimes)}
    return results(logits, targets, [f"class {index}" for index in range(num_classes)])


def test_the_page_says_what_a_colleague_asks():
    found = case(10, 300)
    page = Page(render_report(found))
    assert found.verdict["words"] in page.text
    for section in ("Verdict", "Learning", "Where finetune is wrong", "Images to check", "Confidence", "Cost", "Data"):
        assert section in page.text
    first = worth_a_look(found.predictions["finetune"]).iloc[0]
    assert first["id"] in page.text
    assert "57 of 60 images are used, 10 classes" in page.text
    assert "3,400,000" in page.text
    # Cells follow each other: the stage, its seconds, images/s of all 60 and of 3 × 10 judged ones, memory, device.
    assert "inspecting the images4.0150.5CPU (2 cores)" in page.text
    assert "evaluating finetune4.080.5GPU (one)" in page.text
    assert "training transfer2.0251.5CPU (2 cores)" in page.text
    assert "preparing the images" not in page.text, "nobody knows what it has cost"
    assert "balanced accuracy" not in page.text, "the classes are even"


def test_the_answer_comes_first_and_then_what_was_run():
    found = case(10, 300)
    text = Page(render_report(found)).text
    answer = f"{100 * found.metrics['finetune']['top1']:.1f} % right ("
    facts = "photos: 57 images of 10 classes", "EfficientNetLite0", "24 pixels", "2026-11-29 05:19 UTC", "abc123"
    told = (answer, "a pretrained network, fine-tuned", *facts, "kedro run --env folder", "Verdict")
    places = [text.index(words) for words in told]
    assert places == sorted(places)
    assert "/home/ada" not in text
    unknown = Page(render_report(replace(found, run={}, parameters={}))).text
    assert "Git commit" not in unknown, "a run by another runner is told nothing"


def test_few_images_have_a_rounded_interval_and_few_classes_no_top_5():
    text = Page(render_report(case(6, 30))).text
    assert re.search(r"right \(\d+ to \d+\) of 30 test images", text)
    assert "among the first five" not in text
    assert "among the first five" in Page(render_report(case(7, 30))).text


def test_tests_and_losses_are_folded_away():
    content = render_report(case(3, 60))
    folded = content[content.index("<summary>Statistical tests") :]
    folded = folded[: folded.index("</details>")]
    assert "McNemar" in folded
    assert "nats" in folded
    assert "nats" not in content.replace(folded, "")


def test_each_class_opens_to_its_mistakes_and_three_right_answers_and_each_picture_stands_once():
    found = case(3, 90)
    content = render_report(found)
    page = Page(content)
    stored = {image["id"]: image["href"] for image in page.attributes("image")}
    used = [use["href"].removeprefix("#") for use in page.attributes("use")]
    assert set(used) == stored.keys()
    assert len(used) > len(stored), "the disagreements show some of them again"
    assert all(content.count(href) == 1 for href in stored.values())
    table = found.predictions["finetune"]
    wrong = table.index[~table["correct"]]
    assert {f"i{row}" for row in wrong} <= stored.keys()
    picture = Image.open(io.BytesIO(base64.b64decode(stored[f"i{wrong[0]}"].removeprefix(_WEBP))))
    assert np.abs(np.asarray(picture, int)[12, 12] - found.images[wrong[0], 12, 12]).max() < 20
    for row in table.loc[wrong].itertuples():
        sure = f"{100 * row.confidence:.0f} %"
        told = f"{row.id}: the answer is {row.predicted} with a confidence of {sure}, which is wrong: it is {row.true}."
        assert told in page.text
    for name in ("class 0", "class 1", "class 2"):
        assert page.text.count(f"the answer is {name} with ") - sum(table.loc[wrong, "predicted"] == name) == 3


def test_a_cell_of_the_confusion_table_leads_to_its_images():
    found = case(3, 90)
    page = Page(render_report(found))
    targets = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    cells = found.predictions["finetune"].groupby(["true", "predicted"]).ngroups
    links = [link["href"] for link in page.attributes("a") if re.fullmatch(r"#c\d+-c\d+", link["href"])]
    mistakes = cells - 3
    assert len(links) == cells + mistakes, "in the confusion table, and in that of the most frequent confusions"
    assert {link.removeprefix("#") for link in links} <= set(targets)
    assert len(set(targets)) == len(targets)


def test_of_many_mistakes_each_kind_is_shown_before_a_second_of_any():
    count = 2500
    predicted = np.where(np.arange(count) == 0, "c", "b")
    table = pd.DataFrame({"id": np.arange(count).astype(str), "true": "a", "predicted": predicted})
    table = table.assign(correct=False, confidence=np.linspace(0, 1, count))
    shown = examples_of_classes(table)
    assert 0 in shown.index
    assert len(shown) < 2000
    assert shown["confidence"].is_monotonic_decreasing


def test_thumbnails_shrink_until_all_fit_even_those_of_noise():
    noise = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    found = thumbnails(np.broadcast_to(noise, (120, 224, 224, 3)), range(120))
    assert len(found) == 120
    assert sum(map(len, found.values())) <= 3_700_000


def test_what_the_review_has_found_is_told():
    plain = case(10, 300)
    pair = {"given": "cat<b>", "suggested": "dog", "images": 3}
    label_review = {
        "words": "About 4.0% of the labels are wrong.",
        "notes": ["70 of 90 images are blurry."],
        "kinds": [{"kind": "near_duplicate", "split": "train", "images": 2}],
        "pairs": [pair],
        "classes": [{"class": "cat<b>", "quality": 0.875, "images": 40}],
        "overlapping_classes": [{"first": "cat<b>", "second": "lynx", "images": 7}],
    }
    found = {
        "label_review": label_review,
        "weak_spots": {"words": ["9 like images are wrong."], "spots": []},
        "shortcuts": {"words": ["The border says nothing."], "warnings": ["The format tells the class."]},
        "more_images": {"words": ["Twice as many images:", "+2.0 points."]},
    }
    text = Page(render_report(replace(plain, review=found))).text
    for told in (
        "About 4.0%",
        "70 of 90",
        "near duplicate",
        "cat<b>",
        "lynx",
        "9 like images",
        "The border",
        "The format",
    ):
        assert told in text
    assert "Twice as many images: +2.0 points." in text
    assert "Labels to check" not in Page(render_report(plain)).text


def test_what_changed_since_the_run_before_is_told_where_something_did():
    found = case(10, 300)
    assert "since the run before" not in Page(render_report(found)).text
    now = found.predictions["finetune"]
    change = {"differences": ["finetune.training.learning_rate 0.0003 → 0.001"]}
    change |= change_since(found.predictions["transfer"], now)
    page = Page(render_report(replace(found, change=change)))
    assert f"What changed since the run before\nfinetune: {change['words']}" in page.text.replace("\n\n", "\n")
    assert "learning_rate 0.0003 → 0.001" in page.text
    assert {"href": "#change"} in page.attributes("a")


def test_the_page_needs_nothing_but_itself_and_works_without_a_mouse():
    content = render_report(case(10, 300))
    page = Page(content)
    assert not re.search(r"https?://|src=\"(?!data:)|<link|url\(|@import|fetch\(", content)
    assert page.attributes("html") == [{"lang": "en"}]
    for image in page.attributes("img"):
        assert image["alt"]
        Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix(_WEBP)))).verify()
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"].removeprefix("#") for link in page.attributes("a")} <= targets
    scrolling = [attributes for attributes in page.attributes("div") if attributes.get("class") == "scroll"]
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolling)
    assert len(page.attributes("caption")) == len(page.attributes("table"))


def test_names_from_the_users_folders_are_text_and_never_markup():
    targets = np.array([0, 1, 0, 1])
    content = render_report(
        results({"transfer": noisy(targets, 2, 0, 0)}, targets, ["<script>alert(1)</script>", 'a "b" & c'])
    )
    assert content.count("<script") == 1
    assert "&lt;script&gt;" in content


@pytest.mark.parametrize(("num_classes", "count"), [(2, 1), (2, 40), (10, 10), (120, 600)])
def test_two_classes_and_120_and_one_test_image_a_class(num_classes, count):
    page = Page(render_report(case(num_classes, count)))
    assert "nan" not in page.text.lower().replace("finance", "")
    assert "None" not in page.text


def test_a_missing_regime_and_one_alone():
    assert "baseline" not in Page(render_report(case(10, 300, ("transfer", "finetune")))).text
    assert "nothing to compare" in Page(render_report(case(10, 300, ("transfer",)))).text


def test_all_predictions_of_one_class_and_none_wrong():
    targets = np.arange(30) % 3
    same = np.tile(np.array([[3.0, 0, 0]], np.float32), (30, 1))
    page = Page(render_report(results({"transfer": same}, targets, ["a", "b", "c"])))
    assert "no confidence threshold makes" in page.text
    perfect = Page(render_report(results({"transfer": noisy(targets, 3, 50, 0)}, targets, ["a", "b", "c"])))
    assert "No test image is wrong." in perfect.text


def test_uneven_classes_and_sets_cut_from_imagenet_are_said_beside_the_score():
    targets = np.array([0] * 30 + [1])
    found = results({"transfer": noisy(targets, 2, 3, 0)}, targets, ["many", "few"])
    found.audit["warnings"].append("These images are a part of ImageNet: scores flatter.")  # type: ignore[attr-defined]
    text = Page(render_report(found)).text
    verdict = text[text.index("Verdict") : text.index("Where transfer is wrong")]
    assert "The classes have 1 to 30 test images. Balanced accuracy" in verdict
    assert "a part of ImageNet" in verdict


def test_what_is_worth_a_look_are_the_surest_mistakes_and_the_least_sure_hits():
    table = pd.DataFrame({"correct": [False, True, False, True], "confidence": [0.5, 0.9, 0.8, 0.3]})
    assert list(worth_a_look(table).index) == [2, 0, 3, 1]


@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_gallery_shows_each_image_beside_its_map(count):
    images = np.full((count, 16, 16, 3), 200, np.uint8)
    rows = pd.DataFrame(
        {"true": "a", "predicted": "b", "correct": False, "confidence": np.linspace(0.5, 1, count)}, range(count)
    )
    figure = gallery(images, rows, np.zeros((count, 3, 3), np.float32))
    places = {tuple(image.get_extent()) for image in figure.axes[0].images}
    assert len(places) == 2 * count, "pictures lie side by side"
    titles = [text.get_text() for text in figure.axes[0].texts]
    assert len(titles) == count
    assert titles[:1] == (["a → b 50 %"] if count else [])


def test_disagreements_are_images_on_which_some_are_right_and_some_are_not():
    one = pd.DataFrame({"id": ["0", "1", "2"], "true": ["a"] * 3, "predicted": ["a", "b", "a"]})
    other = one.assign(predicted=["a", "a", "b"])
    tables = {name: table.assign(correct=table["predicted"] == "a") for name, table in (("x", one), ("y", other))}
    rows = disagreements(tables, seed=0)
    assert rows.to_dict("list") == {
        "row": [1, 2],
        "id": ["1", "2"],
        "true": ["a", "a"],
        "x": ["b", "a"],
        "y": ["a", "b"],
    }
    assert disagreements({"x": tables["x"]}, seed=0).empty


def test_a_name_that_is_too_long_keeps_its_end():
    assert fit_name("n02085620-Chihuahua", 12) == "n02…hihuahua"
    assert fit_name("pug", 12) == "pug"


def look(file, content: str, script: str, place: str = "") -> object:
    """What a script finds on a page in a browser, which must not complain."""
    found = f"<script>setTimeout(() => {{ document.title = JSON.stringify((() => {{ {script} }})()); }}, 100)</script>"
    file.write_text(content.replace("</body>", f"{found}</body>"))
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=2000")
    command = [CHROMIUM, *options, f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", file.as_uri() + place]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in result.stderr
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", result.stdout)[1]))


def without_script(content: str) -> str:
    """The page as a browser shows it that runs no scripts."""
    return re.sub(r"<script>.*?</script>", "", content, flags=re.DOTALL)


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@in_a_browser
@pytest.mark.parametrize("num_classes", [10, 120])
def test_a_browser_shows_it_without_errors_or_sideways_scrolling(tmp_path, num_classes):
    script = """
      document.querySelectorAll("details:not(.zoom)").forEach((details) => { details.open = true; });
      const widths = [360, 1280].map((width) => {
        document.body.style.width = `${width}px`;
        return Math.max(document.body.scrollWidth - width, 0);
      });
      const broken = [...document.images].filter((image) => !image.complete || image.naturalWidth === 0).length;
      return { widths, broken, images: document.images.length };"""
    figures = {"comparison_bars": wide_png(), "learning_curves": wide_png(), "confusion_matrix": wide_png()}
    targets = np.arange(600) % num_classes
    names = [f"n{2085620 + index}-a_breed_with_a_name_that_has_no_end_{index}" for index in range(num_classes)]
    found = results({"transfer": noisy(targets, num_classes, 2, 0)}, targets, names, figures)
    seen = look(tmp_path / "report.html", render_report(found), script)
    # Of few classes the confusions stand in a table.
    assert seen == {"widths": [0, 0], "broken": 0, "images": 2 if num_classes == 10 else 3}


@in_a_browser
@pytest.mark.parametrize("scripts", [True, False])
def test_a_link_to_a_cell_opens_its_class_and_a_click_enlarges_a_picture(tmp_path, scripts):
    found = case(3, 90)
    content = render_report(found) if scripts else without_script(render_report(found))
    (row, *_) = confusion(found.predictions["finetune"], [f"class {index}" for index in range(3)]).tolist()
    cell = f"c0-c{next(index for index in (1, 2) if row[index])}"
    script = f"""
      const cell = document.getElementById("{cell}");
      const zoom = cell.parentElement.querySelector(".zoom"), picture = zoom.querySelector("svg");
      const small = picture.getBoundingClientRect().width;
      zoom.querySelector("summary").click();
      return {{ open: cell.closest("details").open, others: document.querySelectorAll(".class[open]").length,
               grown: picture.getBoundingClientRect().width / small > 3 }};"""
    seen = look(tmp_path / "report.html", content, script, f"#{cell}")
    assert seen == {"open": True, "others": 1, "grown": True}


@in_a_browser
def test_a_click_on_a_header_sorts_the_table_and_another_one_turns_it_round(tmp_path):
    found = case(12, 240)
    script = """
      const tables = [...document.querySelectorAll(".sortable")];
      const table = tables.find((each) => each.caption.textContent.startsWith("Each class"));
      const column = (index) => [...table.tBodies[0].rows].map((row) => row.cells[index].textContent);
      const sorted = (index) => {
        table.tHead.rows[0].cells[index].querySelector("button").click();
        return [table.tHead.rows[0].cells[index].ariaSort, ...column(index)];
      };
      return [sorted(1), sorted(1), sorted(0)];"""
    down, up, by_name = look(tmp_path / "report.html", render_report(found), script)
    shares = [row["precision"] for row in found.metrics["finetune"]["per_class"].values()]
    assert down == ["descending", *(f"{100 * share:.1f} %" for share in sorted(shares, reverse=True))]
    assert up == ["ascending", *reversed(down[1:])]
    assert by_name == ["ascending", *(f"class {index}" for index in range(12))]


def wide_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 900), "navy").save(buffer, "png")
    return buffer.getvalue()
