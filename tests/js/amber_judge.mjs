// Which of the methods on the standard input does the parser of the npm package amber accept?
// Its actions build nodes of a Smalltalk system that is not there: one object stands for them all.
import {readFileSync} from "node:fs";
const [file] = process.argv.slice(2);
const methods = JSON.parse(readFileSync(0, "utf8"));
const anything = new Proxy(function () {}, {
  get: (_, name) => (name === Symbol.toPrimitive ? () => "" : anything),
  apply: () => anything,
});
const globals = new Proxy({}, {set: (all, name, value) => { all[name] = value; return true; },
  get: (all, name) => (name in all ? all[name] : anything)});
globalThis.define = (_, make) => make({globals, nil: null});
(0, eval)(readFileSync(file, "utf8"));
const accepted = methods.map(source => {
  try { globals.SmalltalkParser.parse(source); return true; } catch (error) {
    if (error.name !== "SyntaxError" && !(error instanceof RangeError)) throw error;
    return false; }
});
process.stdout.write(JSON.stringify(accepted));
