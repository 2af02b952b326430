"""Faults in console and cli."""

from __future__ import annotations

from benchmarks.mutations.fault import Fault

PROGRESS, TERMINAL = "tests/console/test_progress.py", "tests/console/test_terminal.py"
FORMATTING = "tests/console/test_formatting.py"
CLI = "tests/cli/test_exit_statuses.py tests/cli/test_cli.py"
AGAIN = "tests/local/test_reproduce.py"

FAULTS = (
    Fault(
        "hours have more than 59 minutes",
        "console/formatting.py",
        "whole % 3600 // 60",
        "whole // 60",
        f"{FORMATTING} {PROGRESS}",
    ),
    Fault(
        "a failed trial is not seen while others run",
        "console/sweep_progress.py",
        '    facts += [f"{failed} failed"] if failed else []\n',
        "",
        f"{FORMATTING} {PROGRESS}",
    ),
    Fault(
        "an escape in an error's text is obeyed",
        "console/terminal.py",
        "self.print(Text(shown(text), style=style), soft_wrap=True)",
        "self.print(Text(text, style=style), soft_wrap=True)",
        TERMINAL,
    ),
    Fault(
        "a NaN in a table breaks --json",
        "console/store_tables.py",
        "or (isinstance(value, float) and not math.isfinite(value)):",
        "or False:",
        FORMATTING,
    ),
    Fault(
        "a resume that needs a password is advised",
        "console/command_results.py",
        "if kept else []\n    if not spec.base.mlflow.enabled:",
        "\n    if not spec.base.mlflow.enabled:",
        FORMATTING,
    ),
    Fault(
        "only one reason why trials failed is shown",
        "console/command_results.py",
        "return lines[:REASONS] + more + whole",
        "return lines[:1] + more + whole",
        FORMATTING,
    ),
    Fault(
        "a mistake exits with 1",
        "cli/__init__.py",
        "        sys.exit(2)\n    except KeyboardInterrupt:",
        "        sys.exit(1)\n    except KeyboardInterrupt:",
        CLI,
    ),
    Fault(
        "an error's message is not masked",
        "cli/__init__.py",
        'sys.stderr.write(f"{shown(str(error))}\\n")',
        'sys.stderr.write(f"{error}\\n")',
        CLI,
    ),
    Fault(
        "flush exits with 0 while trials wait",
        "cli/sweep_commands.py",
        "raise typer.Exit(1 if waiting else 0)",
        "raise typer.Exit(0)",
        CLI,
    ),
    Fault(
        "a sweep exits with 0 however it ended",
        "cli/sweep_commands.py",
        "raise typer.Exit(result.exit_status)",
        "raise typer.Exit(0)",
        CLI,
    ),
    Fault(
        "a reproduction that differs exits with 0",
        "cli/trial_commands.py",
        ".equal else 1)",
        ".equal else 0)",
        f"{CLI} {AGAIN}",
    ),
    Fault(
        "a run that failed exits with 0",
        "cli/trial_commands.py",
        "raise typer.Exit(1 if done.failed else 0)",
        "raise typer.Exit(0)",
        CLI,
    ),
    Fault(
        "Enter deletes runs for good",
        "cli/store_commands.py",
        'typer.confirm("delete them?", default=False)',
        'typer.confirm("delete them?", default=True)',
        CLI,
    ),
    Fault(
        "--tag may take MLflow's own names",
        "cli/app.py",
        "return checked_tags(tags)",
        "return tags",
        CLI,
    ),
)
