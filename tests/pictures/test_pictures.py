"""Pictures: made of a record's numbers alone, the same each time, legible, and as harmless as text."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

import fno_telemetry as ft
from fno_telemetry import pictures
from fno_telemetry.diagnosis import example_records
from fno_telemetry.pictures import maps, marks, rows, spectra, themes
from fno_telemetry.records import FrozenMapping
from fno_telemetry.testing import example_record
from support.colours import contrast
from support.picture_records import HOSTILE, bare, deep, example, healthy, hostile, series

SVG = "{http://www.w3.org/2000/svg}"
OF_A_RECORD = ["sizes", "branches", "channels", "spectrum", "values", "modes", "accuracy"]


def all_of(record):
    """Return every picture that a record, a series of it and a pair have."""
    steps = series(6, record)
    found = [*pictures.pictures_of(record), *pictures.pictures_of_series(steps)]
    found += [pictures.depth_profile(record), pictures.curves_by_step(steps)]
    return [*found, *pictures.pictures_of_pair(steps[0], steps[-1])]


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    "record", [example(), healthy(), deep(60), hostile()], ids=["example", "healthy", "deep", "hostile"]
)
def test_every_picture_of_a_record_is_well_formed_and_loads_nothing(record):
    drawn = all_of(record)
    assert len(drawn) > 8
    for picture in drawn:
        svg = picture.svg()
        root = ElementTree.fromstring(svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert picture.title in root.get("aria-label")
        assert picture.alt
        assert picture.caption
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        assert "http" not in "".join(
            svg.split('"')[index] for index in range(3, len(svg.split('"')), 2)
        ).replace("http://www.w3.org/", "")


def test_a_record_has_the_pictures_whose_numbers_it_has():
    assert [*pictures.pictures_of(example()).names] == [name for name in OF_A_RECORD if name != "modes"]
    assert not pictures.pictures_of(bare())
    assert not pictures.pictures_of_series(series(3, bare()))[1:]
    assert not pictures.pictures_of_pair(bare(), bare())
    assert not pictures.pictures_of_series([])
    assert not pictures.pictures_of_series([example()])
    assert pictures.size_and_gain(bare()) is None
    assert pictures.depth_profile(bare()) is None
    assert pictures.curves_by_step(series(3, bare())) is None
    assert pictures.curves_by_step([example()]) is None


def test_modes_are_drawn_where_weights_have_them():
    from fno_telemetry.records import ModeEnergy

    record = example()
    energy = ModeEnergy(sizes=(2, 3), axis_shares=((0.25, 0.75), (0.5, 0.5, 0.0)))
    changed = tuple(replace(module, mode_energy=energy) for module in record.modules[:2])
    picture = pictures.mode_energy(replace(record, modules=changed))
    assert {"modes along axis 1", "modes along axis 2", "lifter"} <= set(texts(picture.svg()))


def test_names_are_text_and_show_in_full_under_the_pointer():
    record = hostile()
    for picture in all_of(record):
        svg = picture.svg()
        assert "<script" not in svg
        assert "<img" not in svg
        assert "\x1b" not in svg
        assert "\u202e" not in svg
    root = ElementTree.fromstring(pictures.size_and_gain(record).svg())
    shown = "".join(root.itertext())
    assert rows.shorten(HOSTILE[0]) in shown
    assert HOSTILE[2] in shown
    assert HOSTILE[6] in [element.text for element in root.iter(f"{SVG}title")]


@pytest.mark.parametrize("longest", [5, 9, 28])
@pytest.mark.parametrize("name", [*HOSTILE, "fno_blocks.0.spectral", "", "a"])
def test_a_name_is_shortened_in_its_middle(name, longest):
    short = rows.shorten(name, longest)
    assert rows.columns_of(short) <= longest or short == name
    assert (short == name) == (rows.columns_of(name) <= longest)
    if short != name:
        start, end = short.split("…")
        assert name.startswith(start)
        assert name.endswith(end)


def marked(record, places):
    """Return the record with an error in each of these places."""
    [error, *_] = example_record.add_findings(record).findings
    return replace(record, findings=tuple(replace(error, id=f"a:{at}", layer=at) for at in places))


@pytest.mark.parametrize("is_marked", [False, True])
@pytest.mark.parametrize("layers", [4, 40, 60, 120, 400])
def test_names_of_layers_do_not_overlap(layers, is_marked):
    record = deep(layers)
    record = marked(record, [module.place for module in record.modules]) if is_marked else record
    figure = pictures.size_and_gain(record).figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    names = [text for text in axes.texts if not isinstance(text, Annotation)]
    boxes = sorted((name.get_window_extent(renderer) for name in names), key=lambda box: box.y0)
    assert len(boxes) >= min(layers, 50)
    assert all(below.y1 <= above.y0 + 1.5 for below, above in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= axes.get_window_extent(renderer).x0


def test_a_finding_marks_its_row():
    record = example_record.add_findings(example())
    assert {"! dead", "! heads[0]"} <= set(texts(pictures.size_and_gain(record).svg()))
    none = replace(record, findings=None)
    assert not [text for text in texts(pictures.size_and_gain(none).svg()) if text and text.startswith("!")]


def test_colours_tell_the_depth_of_a_line_and_of_a_dot():
    steps = series(3, deep(5))
    lines = pictures.curves_by_step(steps).figure().axes[0].lines
    dots = pictures.depth_profile(steps[-1]).figure().axes[0].collections[0].get_facecolors()
    assert [line.get_color() for line in lines] == [tuple(colour) for colour in dots]
    # From dark to light, as one sees in grey too.
    assert all(sum(above[:3]) < sum(below[:3]) for above, below in pairwise(dots))
    assert len(dots) == 1 + 5 + 1


def test_a_dead_layer_lies_on_the_lower_edge_of_a_scale_by_decades():
    [axes] = [
        axes
        for axes in pictures.curves_by_step(series(3)).figure().axes
        if axes.get_title(loc="left") == "rms"
    ]
    assert axes.get_yscale() == "log"
    [dead] = [row for row in rows.layer_rows(example()) if row.number("rms") == 0]
    low, _ = axes.get_ylim()
    lowest = min(line.get_ydata()[0] for line in axes.lines)
    assert dead.place == "dead"
    assert low < lowest < 10 * low
    assert len(axes.lines) == len(rows.layer_rows(example()))


def test_layers_without_a_spectrum_are_named_with_the_reason():
    record = deep(8)
    flat = record.modules[3]
    reasons = FrozenMapping({"low_frequency_fraction": "the fields are constant in space"})
    modules = [replace(one, spectrum=None, reasons=reasons) if one is flat else one for one in record.modules]
    caption = pictures.spectrum_by_layer(replace(record, modules=tuple(modules))).caption
    assert f"{flat.place} (the fields are constant in space)" in caption
    assert "no spectrum" not in pictures.spectrum_by_layer(record).caption


def test_records_at_uneven_steps_are_said_to_have_a_column_each():
    uneven = [
        example_records.set_step(record, step) for record, step in zip(series(3), (0, 1, 50), strict=True)
    ]
    assert any("a column for each record" in (text or "") for text in texts(pictures.losses(uneven).svg()))
    assert not any("each record" in (text or "") for text in texts(pictures.losses(series(3)).svg()))


def test_a_picture_as_numbers_is_the_same_each_time():
    first, second = (pictures.depth_profile(healthy()).pixels(dots_per_inch=60) for _ in range(2))
    assert first.shape == (*first.shape[:2], 3)
    assert first.shape[1] == 450
    assert np.array_equal(first, second)


def test_the_cause_of_a_finding_has_a_row_whatever_its_role():
    record = deep(60)
    modules = (replace(record.modules[0], name="decoder.0", role="other"), *record.modules[1:])
    record = replace(record, modules=modules)
    assert "decoder.0" not in texts(pictures.size_and_gain(record).svg())
    assert "! decoder.0" in texts(pictures.size_and_gain(marked(record, ["decoder.0"])).svg())


def test_one_layer_that_explodes_does_not_make_the_others_look_dead():
    record = deep(20)
    record = example_record.with_stats(record, record.modules[-1].name, rms=1e20, p01=-1e20, p99=1e20)
    axes = pictures.size_and_gain(record).figure().axes[0]
    middle = axes.transData.transform((record.modules[0].stats["rms"], 0))[0]
    assert middle - axes.transData.transform((0, 0))[0] > 5  # points


def test_pictures_of_a_series_mark_findings_at_their_steps():
    run = [example_records.set_step(example_records.healthy_record(), step) for step in range(6)]
    run[4:] = [
        example_records.change_module(record, record.modules[3].name, rms=1e4, abs_p99=1e5)
        for record in run[4:]
    ]
    found = ft.diagnose(*run)
    assert any(finding.severity != "note" for finding in found)
    picture = pictures.statistic_by_step(run, "rms", found)
    assert "triangle" in picture.caption
    assert any(text and text.startswith("! ") for text in texts(picture.svg()))
    quiet = pictures.statistic_by_step(run, "rms", ())
    assert "triangle" not in quiet.caption


def test_numbers_of_findings_at_near_steps_share_a_text():
    assert marks.number_marks([35, 40], 1) == [(35, "1"), (40, "2")]
    assert marks.number_marks([35, 40, 40], 1) == [(35, "1"), (40, "2,3")]
    assert marks.number_marks([120, 121, 121, 123, 127, 130, 134], 5) == [(120, "1–7")]
    # "2,3" is wider than "2", and so too near to 1.
    assert marks.number_marks([10, 12, 13, 14], 1) == [(10, "1–3"), (14, "4")]
    assert marks.number_marks([], 1) == []


def test_numbers_of_blocks_and_of_other_packages_have_maps_too():
    run = series(4)
    assert pictures.statistic_by_step(run, "gain").caption.startswith("A row for each block")
    own = [example_record.with_stats(record, "lifter", mine=float(index)) for index, record in enumerate(run)]
    picture = pictures.statistic_by_step(own, "mine")
    assert "from 0 to 3 in 1 rows" in picture.alt
    assert pictures.statistic_by_step(run, "no_such_number") is None


def test_the_kept_modes_are_where_the_energy_of_a_spectral_layer_ends():
    record = example()
    module = record.module("fno_blocks.0.spectral")
    assert spectra.kept_frequency(module) is None  # it keeps all
    cut = replace(module.spectrum, axis_bands=((1.0, 1e-12), (0.5, 0.5)))
    assert spectra.kept_frequency(replace(module, spectrum=cut)) == 0.25
    assert spectra.kept_frequency(replace(module, spectrum=cut, role="local")) is None
    assert spectra.kept_frequency(replace(module, spectrum=cut, dtype="bfloat16")) is None


def test_energy_is_kept_when_bands_are_made_narrower_or_wider():
    spectrum = example().module("lifter").spectrum
    for count in (1, 3, 7, 50):
        shares = spectra.resample(spectrum, np.linspace(0, spectrum.band_edges[-1], count + 1))
        assert shares.sum() == pytest.approx(1)
    beyond = spectra.resample(spectrum, np.linspace(0, 2 * spectrum.band_edges[-1], 5))
    assert np.isnan(beyond[2:]).all()


def test_colours_of_maps_follow_the_numbers_and_what_is_undefined_has_none():
    grid = np.array([[0.0, 1e-3, 1.0], [np.nan, 1e3, 1e4]])
    scale = maps.ColourScale.fit(grid, "x")
    assert scale.decades
    placed = scale.place(grid)
    assert placed[0, 0] == placed[0, 1] == 0
    assert placed[0, 1] < placed[0, 2] < placed[1, 1] < placed[1, 2] == 255
    assert maps.ColourScale.fit(np.array([[0.2, 0.4]]), "share", share=True).ticks[0] == (0.0, "0")
    flat = maps.ColourScale.fit(np.full((2, 2), 3.0), "x")
    assert flat.low < 3 < flat.high


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_stand_out_from_the_page(theme):
    colours = themes.colours_of(theme)
    for name, least in (("ink", 7), ("muted", 4.5), ("alert", 4.5), ("first", 3), ("second", 3)):
        assert contrast(getattr(colours, name), colours.page) >= least, name
    assert contrast(colours.alert, colours.marked) >= 4.5
    assert contrast(colours.first, colours.second) >= 1.15  # told apart in grey
    assert contrast(colours.first, colours.band) >= 2


def test_colours_are_variables_until_a_theme_is_chosen(tmp_path):
    picture = pictures.size_and_gain(example())
    assert "var(--ink)" in picture.svg()
    assert "#fe01" not in picture.svg()
    assert "var(" not in picture.svg("dark")
    assert themes.DARK.first in picture.svg("dark")
    saved = picture.save(tmp_path / "a.svg", "auto").read_text()
    assert "prefers-color-scheme:dark" in saved
    ElementTree.fromstring(saved)
    with pytest.raises(ft.OptionError, match="light or dark"):
        picture.figure("auto")


def test_files_are_the_same_again_and_nothing_of_the_users_matplotlib_changes(tmp_path):
    picture = pictures.spectrum_by_layer(example())
    before = dict(matplotlib.rcParams)
    first = {kind: picture.save(tmp_path / f"a.{kind}").read_bytes() for kind in ("svg", "png")}
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        for kind, content in first.items():
            assert picture.save(tmp_path / f"b.{kind}").read_bytes() == content
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib.pyplot.get_fignums()
    with pytest.raises(ft.OptionError, match=r"\.svg or \.png"):
        picture.save(tmp_path / "c.pdf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_another_process_draws_the_same_bytes(tmp_path):
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from support.picture_records import example\n"
        "import hashlib; from fno_telemetry import pictures\n"
        "text = ''.join(picture.svg() for picture in pictures.pictures_of(example()))\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    folder = str(Path(__file__).parents[1])
    found = {
        subprocess.run(
            [sys.executable, "-c", program, folder],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_maps_are_images_and_small():
    run = series(200, deep(50))
    for picture in pictures.pictures_of_series(run):
        assert len(picture.svg()) < 60_000, picture.name
    assert "<image" in pictures.statistic_by_step(run, "rms").svg()


def test_a_record_plots_itself_and_finds_pictures_by_name():
    record = example()
    drawn = record.plot()
    assert isinstance(drawn, pictures.Pictures)
    assert drawn["sizes"].svg() == pictures.size_and_gain(record).svg()
    assert drawn[0].name == "sizes"
    assert len(drawn[:2]) == 2
    assert drawn._repr_html_().count("<svg") == len(drawn)
    assert "no pictures" in bare().plot()._repr_html_()
    with pytest.raises(KeyError, match="sizes"):
        drawn["size"]


def test_without_matplotlib_one_line_names_the_extra():
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import fno_telemetry as ft; from fno_telemetry.testing.example_record import example\n"
        "try: example().plot()\n"
        "except ft.MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "Pictures need matplotlib: pip install 'fno-telemetry[plots]'.\n"


def test_a_layer_with_numbers_that_are_not_finite_says_so():
    record = example_record.with_stats(example_record.example(), "lifter", rms=None, p01=None, p99=None)
    assert "not finite" in texts(pictures.size_and_gain(record).svg())


def test_zero_is_on_the_scale():
    record = deep(5)
    module = replace(record.modules[2], stats=FrozenMapping({"rms": 0.0, "p01": 0.0, "p99": 0.0}))
    huge = replace(record.modules[3], stats=FrozenMapping({"rms": 1e9, "p01": -1e9, "p99": 1e9}))
    modules = (*record.modules[:2], module, huge, *record.modules[4:])
    shown = texts(pictures.size_and_gain(replace(record, modules=modules)).svg())
    assert {"0", "1e8", "−1e8"} & set(shown)


def test_the_pictures_of_the_documents_are_small_and_load_nothing():
    folder = Path(__file__).parents[2] / "docs" / "pictures"
    files = sorted(folder.glob("*.svg"))
    shown = "".join(page.read_text(encoding="utf-8") for page in folder.parent.glob("*.md"))
    for file in sorted(folder.glob("*.png")):
        assert file.stat().st_size <= 150_000
        assert f"pictures/{file.name}" in shown
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert len(text) < 40_000
        assert "prefers-color-scheme" in text
        assert "http" not in text.replace("http://www.w3.org/", "")
        assert f"pictures/{file.name}" in shown


@pytest.mark.parametrize("size", [0.0, 5e-324, 1e-200, 1e200, 1.7e308])
def test_numbers_beyond_every_scale_are_left_out_or_zero(size):
    record = example()
    stats = dict.fromkeys(("rms", "p01", "p99", "sample_variation", "dead_channel_fraction"), size)
    modules = tuple(
        replace(module, stats=FrozenMapping({**module.stats, **stats})) for module in record.modules
    )
    blocks = tuple(
        replace(block, stats=FrozenMapping(dict.fromkeys(block.stats, size))) for block in record.blocks
    )
    wide = replace(record.modules[0].spectrum, band_edges=(0.0, 1e300, 1.5e300, 1.7e308))
    modules = (replace(modules[0], spectrum=wide), *modules[1:])
    for picture in all_of(replace(record, modules=modules, blocks=blocks)):
        ElementTree.fromstring(picture.svg())
