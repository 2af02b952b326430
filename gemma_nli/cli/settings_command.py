"""`gemma-nli settings`: what can be set."""

from __future__ import annotations

from typing import Annotated

import typer

from gemma_nli.cli.app import AsJson, app, print_json, say


@app.command()
def settings(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="a setting, or a section such as training")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the page docs/settings.md")] = False,
    as_json: AsJson = False,
) -> None:
    """Show settings: type, default, bounds, meaning."""
    from gemma_nli.console.settings_list import show_settings
    from gemma_nli.spec.every_setting import find_settings, settings_page

    found = find_settings(name)
    if markdown:
        say(settings_page(), end="")
        return
    print_json(as_json, [setting.to_json() for setting in found])
    if not as_json:
        show_settings(found)
