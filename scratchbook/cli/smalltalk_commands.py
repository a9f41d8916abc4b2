"""`scratchbook smalltalk collect`, `prepare` and `stats`: from repositories to methods.

Between the commands stands a folder: what collect found and where, then the rows of prepare.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

from scratchbook.cli.chapter_commands import as_table
from scratchbook.cli.smalltalk_judging_commands import add_smalltalk_judging_commands
from scratchbook.cli.smalltalk_model_commands import add_smalltalk_model_commands

ORDER = ("train", "validation", "test")


def add_smalltalk_commands(commands) -> None:
    """Add `smalltalk` and its actions to the command line."""
    smalltalk = commands.add_parser("smalltalk", help="Smalltalk code, and a model of it")
    actions = smalltalk.add_subparsers(metavar="ACTION", required=True)
    found = _action(actions, "collect", "fetch the repositories of the table, or find them here")
    found.add_argument("names", nargs="*", metavar="SOURCE",
                       help="owner/name of the table (default: all permissive ones)")
    found.add_argument("--output", default="smalltalk", metavar="FOLDER")
    found.add_argument("--from", dest="local", metavar="DIR",
                       help="a folder of repositories or checkouts, one of them, or any folder of "
                            "Smalltalk files: nothing is fetched")
    found.add_argument("--sources", metavar="FILE", help="another table (default: the package's)")
    found.add_argument("--more", action="store_true",
                       help="also sources without a licence file, permissive by their project")
    found.add_argument("--all-licences", action="store_true",
                       help="also what is off: copyleft, and unclear licences")
    found.add_argument("--any-commit", action="store_true",
                       help="with --from: the newest commit where the pinned one is missing")
    found.add_argument("--licence", default="not stated", metavar="NAME",
                       help="of a folder that is not in the table")
    found.add_argument("--base-url", metavar="URL", help="the git server (default: GitHub)")
    found.add_argument("--search", metavar="QUERY",
                       help="ask GitHub which repositories there are, such as 'language:smalltalk "
                            "license:mit', and write FOLDER/found.toml for --sources")
    found.add_argument("--monticello", metavar="URL",
                       help="fetch the newest .mcz of each package of a Monticello repository")
    _add_prepare(_action(actions, "prepare", "clean, deduplicate, split, balance and audit"))
    stats = _action(actions, "stats", "sizes, licences and lengths by split and project")
    stats.add_argument("folder", help="what prepare wrote")
    stats.add_argument("--json", action="store_true", help="as JSON")
    add_smalltalk_model_commands(partial(_action, actions, module="smalltalk_model_commands"))
    add_smalltalk_judging_commands(partial(_action, actions, module="smalltalk_judging_commands"))


def _add_prepare(command: argparse.ArgumentParser) -> None:
    command.add_argument("collected", help="the folder that collect wrote")
    command.add_argument("--output", default="smalltalk/corpus", metavar="FOLDER")
    command.add_argument("--threshold", type=float, default=0.8, metavar="SHARE",
                         help="runs of six tokens that two methods share (default: 0.8)")
    command.add_argument("--cap", type=float, default=0.25, metavar="SHARE",
                         help="of the training text, for one project (default: 0.25)")
    command.add_argument("--max-characters", type=int, default=8_000, metavar="N",
                         help="longer methods are dropped (default: 8,000)")
    command.add_argument("--format", action="store_true",
                         help="write every method in one layout, the printer's")
    command.add_argument("--json", action="store_true", help="print the account as JSON")


def _action(actions, name: str, text: str, module: str = "smalltalk_commands"
            ) -> argparse.ArgumentParser:
    command = actions.add_parser(name, help=text, description=text)
    command.set_defaults(module=module, action=f"{name}_smalltalk")
    return command


def collect_smalltalk(options: argparse.Namespace) -> int:
    """Bring every source here; one line each, and how many could not be had."""
    from scratchbook.smalltalk import collecting
    from scratchbook.smalltalk.source_table import GITHUB, choose_sources, load_sources

    if options.search:
        return _search(options)
    if options.monticello:
        return _monticello(options)
    sources = choose_sources(load_sources(options.sources), options.names, options.more,
                             options.all_licences)
    if options.local and not options.names and not collecting.any_here(sources, options.local):
        entries = collecting.collect_folder(options.local, options.output, options.licence)
        print(collecting.described(entries[-1]))
    else:
        entries = collecting.collect(sources, options.output, options.local,
                                     options.base_url or GITHUB, options.any_commit, print)
    missing = sum(bool(entry.error) for entry in entries)
    size = sum(entry.bytes for entry in entries) / 1e6
    print(f"{Path(options.output, collecting.MANIFEST)}: {len(entries) - missing} sources, "
          f"{size:,.1f} MB of Smalltalk; {missing} could not be had")
    return 0 if missing < len(entries) else 1


def _search(options: argparse.Namespace) -> int:
    import os

    from scratchbook.smalltalk import github

    client = github.Client(Path(options.output, "github"), os.environ.get("GITHUB_TOKEN"),
                           say=print)
    path = Path(options.output, "found.toml")
    found = github.write_table(client, options.search, path)
    print(f"{path}: {found} repositories; read their licences, then: scratchbook smalltalk collect "
          f"--sources {path} --more")
    return 0


def _monticello(options: argparse.Namespace) -> int:
    from scratchbook.smalltalk.collecting import collect_folder, described
    from scratchbook.smalltalk.monticello_index import download

    folder = Path(options.output, options.monticello.rstrip("/").rpartition("/")[2])
    for line in download(options.monticello, folder):
        print(line)
    print(described(collect_folder(folder, options.output, options.licence)[-1]))
    return 0


def prepare_smalltalk(options: argparse.Namespace) -> int:
    """Write the corpus and print what each step left."""
    from scratchbook.data.smalltalk_corpus import prepare, save_corpus
    from scratchbook.smalltalk.collecting import load_manifest
    from scratchbook.smalltalk.preparing import in_style

    checkouts = load_manifest(options.collected)
    if not checkouts:
        raise ValueError(f"{options.collected} holds nothing that was collected: first run "
                         "scratchbook smalltalk collect")
    start = time.process_time()
    say = print if not options.json else lambda line: None
    parts, classes, funnel = prepare(checkouts, threshold=options.threshold, cap=options.cap,
                                     max_characters=options.max_characters,
                                     layout=in_style if options.format else None, say=say)
    funnel.facts["cpu_seconds"] = time.process_time() - start
    save_corpus(options.output, parts, classes, funnel)
    if options.json:
        print(json.dumps(funnel.as_dict(), indent=1, ensure_ascii=False))
        return 0
    print(as_table(funnel.rows()))
    print(as_table([{"dropped because": reason, "methods": f"{count:,}"}
                    for reason, count in funnel.reasons.most_common()]))
    _print_account(funnel.as_dict())
    print(f"{options.output}: {funnel.facts['cpu_seconds']:.0f} CPU seconds")
    return 0


def stats_smalltalk(options: argparse.Namespace) -> int:
    """Print what `prepare` wrote: by split, and by project within each."""
    path = Path(options.folder, "funnel.json")
    if not path.is_file():
        raise ValueError(f"{path} is missing: first run scratchbook smalltalk prepare")
    try:
        account = json.loads(path.read_text(encoding="utf-8"))
        if options.json:
            print(json.dumps(account["splits"], indent=1, ensure_ascii=False))
            return 0
        print(as_table([{"split": split, "project": project, "MB": f"{size / 1e6:.2f}"}
                        for split in ORDER for project, size
                        in account["splits"][split]["bytes_by_project"].items()]))
        _print_account(account)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no account of scratchbook smalltalk prepare ({error}): "
                         "prepare the corpus again") from None
    return 0


def _print_account(account: dict) -> None:
    """Splits, balance and audit, in words."""
    print(as_table([{"split": split, "methods": f"{part['methods']:,}",
                     "MB": f"{part['bytes'] / 1e6:.2f}",
                     "projects": str(len(part["bytes_by_project"])),
                     **{f"characters, {name}": str(n) for name, n in part["lengths"].items()}}
                    for split in ORDER for part in [account["splits"][split]]]))
    balance = account["balance"]
    print(f"Gini over training projects: {balance['gini_before']:.3f}, with the cap of "
          f"{balance['cap']:.0%} a project {balance['gini_after']:.3f}")
    for split, found in account["audit"].items():
        near = ", ".join(f"{share:.2%} at {limit}" for limit, share in found["near"].items())
        print(f"{split}: {found['exact']} of {found['methods']:,} methods stand in training word "
              f"for word; of {found['compared']:,} long enough, {near} or more like one there")
    print(f"{len(account['not_read'])} sources with unreadable files, "
          f"{sum(found['count'] for found in account['not_read'].values()):,} files or parts; "
          f"{len(account['not_collected'])} sources not collected")
