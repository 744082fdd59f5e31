"""docs/first.svg: what the first minute looks like, drawn from what the real program prints.

`make docs` draws it again; a test holds it against the program of today.
"""

import io
import re
import shutil
import subprocess
import sys

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.highlighter import JSONHighlighter
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests import ROOT
from tests.canaries import watch

PATH = ROOT / "docs/first.svg"
WIDTH = 112
# no font from a foreign host: the reader's own
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT,
                flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
STEPS = (
    "curl -su {token}: '{url}?party=qcloud&tenant_id=123&region=gz&f=1&t=10' \\\n    | jq '.vm_servers[0]'",
    "curl -su {token}: '{url}?party=all&tenant_id=123&region=all' \\\n"
    "    | jq -c '.complete, (.vm_servers | length), (.sources[:6][] | [.party, .region, .state, .count])'",
)


def draw() -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor",
                      legacy_windows=False)
    process = subprocess.Popen([sys.executable, "-m", "chalicelib", "demo", "--port", "0"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline().strip() if process.stdout else ""
        match = re.fullmatch(r"curl -u '(tc_\w+):password' '(http://[^?]+)\?.*'", line)
        assert match, line
        token, url = watch(match[1]), match[2]

        def plain(text: str) -> str:
            return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", text.replace(token, "tc_…"))

        def typed(command: str) -> None:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=False)

        typed("make run")
        console.print(Text(plain(line)))
        for step in STEPS:
            console.print()
            typed(plain(step.format(token=token, url=url)).replace("tc_…", "$TOKEN"))
            shown = subprocess.run(["bash", "-euo", "pipefail", "-c", step.format(token=token, url=url)],
                                   capture_output=True,
                                   text=True, timeout=60, check=True).stdout
            console.print(JSONHighlighter()(Text(plain(shown).rstrip())))
    finally:
        process.terminate()
        process.wait(20)
    drawn = console.export_svg(title="the first minute", theme=MONOKAI, code_format=FORMAT, unique_id="twocloud")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


if __name__ == "__main__":
    if not shutil.which("jq"):
        sys.exit("docs/first.svg is drawn with jq, which is not on this machine")
    PATH.write_text(draw())
