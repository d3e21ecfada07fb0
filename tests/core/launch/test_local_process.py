"""The environment that a trainer is started in, and the process itself."""

from llf_core.launch.local_process import RUNTIME_VARIABLES, THREAD_VARIABLES, Trainer, computing_environment


def test_threads_and_the_allocator_are_set_before_any_library_is_loaded():
    made = computing_environment({"HOME": "/somewhere"}, 3)
    assert {made[name] for name in THREAD_VARIABLES} == {"3"}
    assert made.items() >= {**RUNTIME_VARIABLES, "HOME": "/somewhere"}.items()
    assert "OMP_WAIT_POLICY" not in made


def test_what_the_user_has_set_stays():
    own = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "infinite", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "10"}
    made = computing_environment(own, 3)
    assert made.items() >= own.items()
    assert made["MKL_NUM_THREADS"] == "3"


def test_a_log_has_no_colours_whoever_starts_the_run():
    made = computing_environment({"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-color"}, 3)
    assert "FORCE_COLOR" not in made
    assert "CLICOLOR_FORCE" not in made
    assert (made["NO_COLOR"], made["TERM"]) == ("1", "xterm-color")


def test_the_exit_code_of_a_trainer_can_be_asked_again(tmp_path):
    with (tmp_path / "log.txt").open("wb") as log:
        trainer = Trainer(["/bin/sh", "-c", "exit 3"], {}, log)
        trainer.go()
        assert [trainer.wait(10), trainer.wait(10)] == [3, 3]
