"""Entry point: `python run.py model=bloom sparsity=0.6 langs=flores30`; `python run.py --help` lists the choices."""

from mwanda.command_line import main


if __name__ == "__main__":
    main()
