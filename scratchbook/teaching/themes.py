"""How tables, figures and boxes look where the book's own style sheet is not.

JupyterLab, VS Code and Colab show an output with styles of theirs, the last two in a frame of its
own. So each output brings the little that it needs: its ink follows the host's theme where the
host says it, and else the reader's preference, with paper of its own below.
"""

from __future__ import annotations

import re

_LIGHT = "--sb-ink:#1c1e21;--sb-paper:#fff;--sb-muted:#5a6068;--sb-line:#c9ced6;--sb-good:#1d6b46"
_DARK = "--sb-ink:#e6e8eb;--sb-paper:#121417;--sb-muted:#a8b0ba;--sb-line:#565d66;--sb-good:#79cfa3"
# The book has a style sheet; Colab, JupyterLab and VS Code say in their own ways which theme it is.
# live/common.js has the same list for the living figures.
_UNKNOWN = "html:not([data-theme],[theme]) body:not([data-jp-theme-light],[class*=vscode-])"
_KNOWN = ":is(html[theme],body[data-jp-theme-light],body[class*=vscode-])"
_KNOWN_DARK = (":is(html[theme=dark],body[data-jp-theme-light=false],body.vscode-dark,"
               "body.vscode-high-contrast:not(.vscode-high-contrast-light))")
_RULES = f"""
html:not([data-theme]) .sb-out{{{_LIGHT};color:var(--sb-ink);background:var(--sb-paper);
 font:14px/1.45 system-ui,sans-serif;margin:.5rem 0;padding:.3rem .5rem;border-radius:6px;
 & :is(figure,table){{margin:0;border:0;border-collapse:collapse;color:inherit}}
 & .sb-table{{overflow-x:auto}}
 & :is(tr,th,td){{background:none;color:inherit;border:0;text-align:left;vertical-align:top;
 white-space:normal;font-size:inherit}}
 & :is(th,td){{padding:.3rem 1rem .3rem 0;border-bottom:1px solid var(--sb-line)}}
 & th{{font-weight:600;color:var(--sb-muted);border-bottom-width:2px}}
 & .sb-number{{text-align:right;font-variant-numeric:tabular-nums}}
 & :is(caption,figcaption){{caption-side:top;text-align:left;color:var(--sb-muted);padding:.3rem 0}}
 & .admonition{{border:1px solid var(--sb-line);border-left:4px solid var(--sb-good);
 border-radius:8px;padding:.6rem 1rem}}
 & .admonition-title{{font-weight:650;margin:0 0 .3rem}}
 & ul{{margin:0;padding-left:1.3rem}}
 & code{{background:none;color:inherit}}}}
@media(prefers-color-scheme:dark){{{_UNKNOWN} .sb-out{{{_DARK}}}}}
{_KNOWN}:not([data-theme]) .sb-out.sb-out{{background:none}}
{_KNOWN_DARK}:not([data-theme]) .sb-out.sb-out{{{_DARK}}}"""
_STYLE = re.sub(r"\n *", "", _RULES)


def dressed(html: str) -> str:
    """The HTML of an output with the style that it needs outside of the book."""
    return f'<div class="sb-out"><style>{_STYLE}</style>{html}</div>'
