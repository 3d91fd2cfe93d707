import sys

import pytest

from xdistil_tf.beam.runners import Runner


def test_an_unknown_runner_is_named():
    pytest.importorskip("apache_beam")
    with pytest.raises(ValueError, match="no runner --runner=NoSuch.*DirectRunner"):
        Runner("NoSuch")


def test_missing_beam_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"needs Apache Beam: pip install 'xdistil_tf\[beam\]'"):
        Runner("DirectRunner")


def test_options_reach_the_pipeline_and_unknown_ones_are_named():
    pytest.importorskip("apache_beam")
    runner = Runner("DirectRunner", ["direct_num_workers=2", "--job_name=words"])
    with runner.pipeline() as pipeline:
        options = pipeline.options.get_all_options()
        assert (options["direct_num_workers"], options["job_name"]) == (2, "words")
        pipeline | runner.beam.Create([1])
    with pytest.raises(ValueError, match="no option --runner_option=paralelism=4.*DirectRunner"):
        Runner("DirectRunner", ["paralelism=4"])


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, RuntimeError])
def test_what_a_function_raises_is_raised_without_the_step_that_ran_it(kind):
    pytest.importorskip("apache_beam")
    runner = Runner("DirectRunner")

    def fail(_):
        raise kind("a.txt, row 3: bad.")

    with pytest.raises(kind, match=r"^a.txt, row 3: bad\.$"), runner.pipeline() as pipeline:
        pipeline | runner.beam.Create([1]) | runner.beam.Map(fail)
