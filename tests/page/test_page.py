"""The page: one file that loads nothing, reads without scripts and shows names as text."""

import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from itertools import pairwise

import pytest

import fno_telemetry as ft
from fno_telemetry import page, report
from fno_telemetry.diagnosis import example_records
from fno_telemetry.pictures import themes
from fno_telemetry.records import FrozenMapping, freeze_mapping
from fno_telemetry.testing import example_record
from support.colours import contrast
from support.hostile_text import make_evil_reports, shows_only_what_is_seen
from support.html_pages import Page, needs_browser, read_after_scripts, take_picture
from support.picture_records import HOSTILE, bare, broken_run, deep, example, hostile, series


@pytest.fixture(scope="module")
def text():
    return page.render_page([example()])


@pytest.fixture(scope="module")
def hostile_text():
    record = hostile()
    run = series(3, record)
    return page.render_page(run, record.findings, ft.compare(run[0], run[1]), HOSTILE, HOSTILE[:3])


def test_the_order_is_findings_profile_blocks_spectra_accuracy_layers_provenance(text):
    order = ["Findings", "Profile by depth", "Blocks", "Spectra", "Accuracy", "Layers", "Notes", "Provenance"]
    assert Page(text).headings() == order


def test_a_page_is_well_formed_and_loads_nothing(text, hostile_text):
    for written in (text, hostile_text):
        parsed = Page(written)
        assert parsed.misplaced == []
        assert [tag for tag in parsed.open if tag != "tr"] == []
        assert parsed.loads() == []
        assert len(parsed.ids) == len(set(parsed.ids))
        targets = {attributes["href"] for attributes in parsed.named("a")}
        assert {target[1:] for target in targets} <= set(parsed.ids)
        assert "http://" not in written.replace("http://www.w3.org/", "")
        assert "https://" not in written


def test_the_policy_allows_this_script_and_nothing_else(text):
    [policy] = [each["content"] for each in Page(text).named("meta") if "http-equiv" in each]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"
    assert set(rules) == {"default-src", "style-src", "img-src", "script-src", "base-uri", "form-action"}
    assert len(script.encode()) < 10_000
    assert not [name for _, attributes in Page(text).tags for name in attributes if name.startswith("on")]


def test_it_reads_without_its_script(text):
    without = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    shown = Page(without).text
    for part in ("1 error, 1 note", "dead_layer", "Look at it.", "lifter", "0.125", "low freq.", "torch"):
        assert part in shown
    assert without.count("<svg") == len(example().plot())
    assert all(each.get("aria-label") for each in Page(without).named("svg"))


@pytest.mark.parametrize("records", [[example()], [bare()], [hostile()], broken_run()], ids=len)
def test_readers_who_hear_a_page_can_find_their_way(records):
    findings = records[-1].findings if len(records) == 1 else ft.diagnose(*records)
    parsed = Page(page.render_page(records, findings))
    assert parsed.named("html") == [{"lang": "en"}]
    assert len(parsed.named("h1")) == len(parsed.named("main")) == 1
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))  # no level is left out
    assert all(each.get("role") == "img" and each.get("aria-label") for each in parsed.named("svg"))
    # What can be scrolled can be reached by keyboard, and says what it is.
    assert all(
        each.get("tabindex") == "0" and each.get("role") == "region" and each.get("aria-label")
        for each in parsed.named("div")
        if each.get("class") == "wide"
    )
    inside_table = False
    for tag, attributes in parsed.tags:
        inside_table = inside_table if tag != "table" else attributes.get("class") != "numbers"
        if tag == "th" and inside_table:
            assert attributes["scope"] in ("row", "col")


def test_every_text_of_the_style_stands_out_from_what_is_behind_it():
    for name in ("light", "dark"):
        theme = themes.colours_of(name)
        pairs = [(theme.ink, behind) for behind in (theme.page, theme.marked, theme.grid)]
        pairs += [(theme.muted, theme.page), (theme.first, theme.page), (theme.alert, theme.page)]
        pairs += [(theme.page, theme.alert), (theme.first, theme.grid), (theme.alert, theme.grid)]
        assert [pair for pair in pairs if contrast(*pair) < 4.5] == [], name


def test_every_number_of_every_layer_is_there(text):
    shown = Page(text).text
    record = example()
    for module in record.modules:
        assert all(name in shown for name in module.stats)
    assert "the fields are zero everywhere" in shown


def test_the_same_record_gives_the_same_bytes(text, tmp_path):
    first = page.write_page(tmp_path / "a.html", [example()])
    assert first.read_bytes() == text.encode()
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from support.picture_records import example; from fno_telemetry import page\n"
        "sys.stdout.buffer.write(page.render_page([example()]).encode())\n"
    )
    folder = str(resources.files("support").joinpath("..").resolve())
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, check=True)
    assert done.stdout == text.encode()


def test_hostile_names_are_text(hostile_text):
    parsed = Page(hostile_text)
    assert len(parsed.named("script")) == 1
    assert not parsed.named("img")
    assert HOSTILE[0] in parsed.text
    assert "evil?[2J" in parsed.text.replace("?evil", "evil")
    assert shows_only_what_is_seen(hostile_text)


def test_hostile_reports_make_pages_of_text():
    for document in make_evil_reports():
        written = page.render_page([report.as_record(document)])
        assert "evil" in written
        assert shows_only_what_is_seen(written)
        assert Page(written).loads() == []


def test_what_broke_comes_before_what_every_training_begins_with():
    def found(step, severity, layer):
        return ft.Finding(
            id=f"step{step}:rule:{layer}",
            rule=f"rule_{step}",
            severity=severity,
            layer=layer,
            step=step,
            report=None,
            message=f"of step {step}",
            evidence=FrozenMapping({}),
            advice="",
            follows_from=None,
        )

    run = [replace(record, findings=()) for record in broken_run(3)]
    run[0] = replace(run[0], findings=(found(0, "warning", "output"),))
    run[2] = replace(run[2], findings=(found(2, "error", "blocks.1"),))
    text = Page(page.render_page(run)).text
    assert text.index("of step 2") < text.index("of step 0")


def test_a_run_has_its_steps_and_the_findings_where_they_began():
    run = broken_run()
    found = ft.diagnose(*run)
    parsed = Page(page.render_page(run, found))
    assert parsed.headings()[:3] == ["Findings", "Over the steps", "Profile by depth of step 5"]
    assert "6 records" in parsed.text
    assert found[0].message in parsed.text
    assert "step 4" in parsed.text


def test_a_comparison_has_its_verdict_and_both_records():
    run = broken_run(5)
    comparison = ft.compare(run[0], run[4])
    parsed = Page(page.render_page([run[0], run[4]], comparison=comparison))
    assert parsed.headings()[0] == "What changed"
    assert comparison.verdict in parsed.text
    assert "step 0" in parsed.text
    assert "the rms grew" in parsed.text
    of_run = Page(page.render_page(run, comparison=ft.compare(*run)))
    assert of_run.headings()[:2] == ["What changed", "Over the steps"]


def test_fifty_layers_and_two_hundred_steps_are_less_than_a_megabyte():
    large = example_record.large(example_record.example(), layers=50)
    run = series(200, large)
    assert len(page.render_page(run, ()).encode()) < 1_000_000


def test_a_network_of_many_layers_lists_those_that_matter():
    record = example_record.add_findings(example_record.large(example_record.example(), layers=500))
    written = page.render_page([record])
    assert len(written.encode()) < 1_500_000
    assert "more layers" in Page(written).text


def test_records_without_numbers_make_a_page_too():
    parsed = Page(page.render_page([bare()]))
    assert not parsed.named("svg")
    assert "not diagnosed" in parsed.text
    with pytest.raises(ft.OptionError, match="needs a record"):
        page.render_page([])
    with pytest.raises(ft.OptionError, match="expected records"):
        page.render_page(["report.json"])


def test_a_healthy_record_says_that_nothing_was_found():
    parsed = Page(page.render_page([replace(example_records.healthy_record(), findings=())]))
    assert "nothing found" in parsed.text
    assert "Nothing was found." in parsed.text


def test_a_file_that_is_no_page_stays(tmp_path, monkeypatch):
    mine = tmp_path / "report.json"
    mine.write_text("{}")
    with pytest.raises(ft.ReportError, match="no HTML page"):
        page.write_page(mine, [example()])
    assert mine.read_text() == "{}"
    with pytest.raises(ft.ReportError, match="a folder is there"):
        page.write_page(tmp_path, [example()])
    with pytest.raises(ft.ReportError, match="not a folder"):
        page.write_page(mine / "page.html", [example()])
    earlier = tmp_path / "page.html"
    earlier.write_text("<!DOCTYPE html><p>an earlier one")
    page.write_page(earlier, [bare()])
    assert "an earlier one" not in earlier.read_text()
    monkeypatch.setattr("fno_telemetry.page.writing.render_page", lambda *_: 1 / 0)
    before = earlier.read_bytes()
    with pytest.raises(ZeroDivisionError):
        page.write_page(earlier, [example()])
    assert earlier.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "report.json"]


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_an_extra_one_line_names_it(missing, tmp_path):
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import fno_telemetry as ft; from fno_telemetry import page\n"
        "from fno_telemetry.testing.example_record import example\n"
        "try: page.write_page(sys.argv[1], [example()])\n"
        "except ft.MissingExtra as error: print(error)\n"
    )
    target = tmp_path / "page.html"
    done = subprocess.run([sys.executable, "-c", program, target], capture_output=True, text=True, check=True)
    assert done.stdout == "A page needs jinja2 and matplotlib: pip install 'fno-telemetry[html]'.\n"
    assert not target.exists()


def test_a_notebook_shows_the_tables_of_a_record_without_any_extra():
    program = (
        "import sys; sys.modules['jinja2'] = sys.modules['matplotlib'] = None\n"
        "from fno_telemetry.testing.example_record import example, add_findings\n"
        "print(add_findings(example())._repr_html_())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    parsed = Page(done.stdout)
    assert parsed.misplaced == []
    assert {"CascadedFNOGenerator", "lifter", "fno_blocks.10", "low freq."} <= {t for _, t in parsed.texts}
    assert "1 error" in parsed.text


def test_a_notebook_shows_hostile_names_as_text_and_not_all_of_many_rows():
    shown = hostile()._repr_html_()
    assert not Page(shown).named("script")
    assert not Page(shown).named("img")
    assert shows_only_what_is_seen(shown)
    assert "more in" in Page(deep(200)._repr_html_()).text


def test_facts_of_any_kind_are_rows():
    provenance = freeze_mapping({"a": {"b": [1, 2], "c": None}, "d": True})
    shown = Page(page.render_page([replace(bare(), provenance=provenance, summary=FrozenMapping({}))])).text
    assert "a.b\n1, 2" in shown
    assert "a.c" not in shown
    assert "d\nTrue" in shown


@needs_browser
def test_a_browser_draws_it_without_a_network_and_names_what_is_under_the_pointer(tmp_path, text):
    path = tmp_path / "page.html"
    path.write_text(text)
    take_picture(path, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000
    shown = read_after_scripts(path)
    assert '<div id="under" hidden' in shown  # so its script ran
    assert 'type="search"' in shown
    assert shown.count("<button") > 10
    assert '"button">rms' in shown


@needs_browser
def test_a_browser_that_runs_no_scripts_shows_all_of_it(tmp_path, text):
    path = tmp_path / "page.html"
    path.write_text(re.sub(r"script-src [^;]*;", "script-src 'none';", text))
    shown = read_after_scripts(path)
    assert '<div id="under"' not in shown  # so its script was kept from running
    assert "<button" not in shown
    assert Page(shown).headings() == Page(text).headings()
    assert shown.count("<svg") == text.count("<svg")
    assert shown.count("<details") == text.count("<details")


@needs_browser
def test_its_script_sorts_numbers_and_keeps_undefined_ones_last(tmp_path):
    written = page.render_page([example()])
    # The policy would refuse a second script.
    written = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", written)
    clicks = (
        "<script>const h=[...document.querySelectorAll('#layers th button')]"
        ".find(b=>b.textContent==='rms');h.click();h.click();</script></body>"
    )
    path = tmp_path / "page.html"
    path.write_text(written.replace("</body>", clicks))
    shown = Page(read_after_scripts(path))
    rows = re.findall(r'<section id="layers">(.*?)</table>', read_after_scripts(path), re.DOTALL)[0]
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row)[2] for row in re.findall(r"<tr.*?</tr>", rows)[1:]]
    known = [float(cell) for cell in cells if cell != "–"]
    assert known == sorted(known, reverse=True)
    assert "–" not in cells[: len(known)]
    assert 'aria-sort="descending"' in rows
    assert shown.misplaced == []


@needs_browser
def test_a_browser_shows_hostile_names_as_text(tmp_path, hostile_text):
    path = tmp_path / "page.html"
    path.write_text(hostile_text)
    shown = read_after_scripts(path)
    assert "alert(1)" in shown
    assert "<img" not in shown
    assert shown.count("<script") == 1
