"""Sweeps: many runs that are planned, recorded and taken up again together.

    python run.py --multirun criterion=wanda,mwanda sparsity=0.3,0.5 [sweep.name=NAME] [sweep.parallel=2]
    python -m mwanda.sweep JOB_FOLDER        one planned job, here and now (what a cluster's job calls)

**Folders.** `outputs/sweeps/<name>/<job>/`. `<name>` is `sweep.name`, or `name` if that was typed, or the experiment,
or what varies and a digest of the overrides: the same whenever the same sweep is typed. `<job>` is what varies and
eight digits of the hash of the run's semantic configuration (`RunSpec.config_hash`): a job is found again by that hash,
whatever else the sweep varies by then. `sweep.json` is the plan: every job with its overrides.

**Starting a sweep again.** `rerun` decides, when the sweep is started:

    unfinished   (default) skip what is complete, run all others; half-done runs go on behind their last finished block
    failed       only what has failed, was interrupted or is lost; what has never been started stays so
    none         only what has never been started
    all          everything, from the beginning; finished results and checkpoints are removed first

A job that another process is at work on is left alone. The plan says what was decided (`action`: run, skip or leave),
so that whoever runs a job need not decide again: a job that is requeued resumes, also under `rerun=all`.
"""
