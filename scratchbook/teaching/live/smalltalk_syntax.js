// Pharo's syntax in the reader's browser: the lexer and parser of scratchbook.smalltalk, line by line.
// tests/js/test_smalltalk_syntax_js.py holds both to the same trees and the same refusals.
(function define(root) {
  "use strict";

  const [NAME, KEYWORD, PUNCTUATION, CONSTANT, NUMBER, ASSIGN, BINARY, SYMBOL, STRING, ARRAY, BYTES,
    CHARACTER, COMMENT, BAD, END] = Array.from({ length: 15 }, (_, kind) => kind);
  const LITERALS = { [NUMBER]: "number", [STRING]: "string", [SYMBOL]: "symbol",
    [CHARACTER]: "character", [CONSTANT]: "constant" };
  const MAX_DEPTH = 100; // brackets inside brackets

  // Which letters are digits depends on the base: the e of 16r1e2 is one, that of 2r1e2 is none.
  function radixNumbers() {
    const names = "0123456789abcdefghijklmnopqrstuvwxyz";
    const choices = [];
    for (let base = 2; base <= 36; base++) {
      const some = names.slice(0, base) + names.slice(10, base).toUpperCase();
      const digits = `[${some}]+(?![${some}])`;
      choices.push(`0*${base}r-?${digits}(?:\\.${digits})?`);
    }
    return [...choices, "0*(?:3[7-9]|[4-9][0-9]|[1-9][0-9]{2,})r-?[0-9A-Za-z]+(?![0-9A-Za-z])"].join("|");
  }

  function tokenPattern() {
    const first = "[\\p{L}_]", more = "[\\p{L}\\p{N}_]", operator = "[-+/\\\\*~<>=@,%|&?!·÷±×]";
    const name = `${first}${more}*(?!${more})`;
    const words = `${name}(?::+(?:${name})?)*`;
    const quoted = "'[^']*(?:''[^']*)*'(?!')";
    const constant = `(?:true|false|nil)(?!${more})`;
    const power = "[edq]-?0*(?:10000|[0-9]{1,4})(?![0-9])";
    const scale = "(?![edq]-?[0-9])(?:s[0-9]+(?![0-9])|s(?!\\p{L}))?";
    const integer = "[0-9]+(?![0-9])";
    const number = `-?(?:${integer}(?!r)(?:\\.${integer})?|(?=[0-9]+r)(?:${radixNumbers()}))(?:${power}|${scale})`;
    const kinds = [
      `(?!${constant})${name}(?!:(?!=))`, `${name}:(?!=)`, "[\\]\\[(){}^.;]|:(?!=)", constant, number, ":=",
      `${operator}+`, `#+(?:${words}|${operator}+|${quoted})`, quoted, "#+\\(", "#+\\[", "\\$[\\s\\S]",
      '"[^"]*"', "[^ \\t\\n\\r\\f\\0]",
    ];
    return new RegExp(`[ \\t\\n\\r\\f\\0]*(?:${kinds.map((kind) => `(${kind})`).join("|")})`, "yu");
  }
  const TOKEN = tokenPattern();
  const WORDS = /[\p{L}_][\p{L}\p{N}_]*(?::+(?:[\p{L}_][\p{L}\p{N}_]*)?)*/uy;

  // {kind, text, start} of every token but comments, ended by two of kind END.
  function scan(source) {
    const tokens = [];
    TOKEN.lastIndex = 0;
    for (let found; TOKEN.lastIndex < source.length && (found = TOKEN.exec(source)); ) {
      const kind = found.findIndex((text, place) => place && text !== undefined) - 1;
      const text = found[kind + 1];
      if (kind !== COMMENT) tokens.push({ kind, text, start: TOKEN.lastIndex - text.length });
    }
    const end = () => ({ kind: END, text: "", start: source.length });
    return [...tokens, end(), end()];
  }

  class SyntaxFault extends Error {
    constructor(position, expected) {
      super(expected);
      this.position = position;
      this.expected = expected;
    }
  }

  // A node is {kind, text, children, start, stop}: text is a name, a selector or a literal's source.
  class Parser {
    constructor(source) {
      this.source = source;
      this.tokens = scan(source);
      this.at = 0;
      this.depth = 0;
    }

    get kind() { return this.tokens[this.at].kind; }
    get text() { return this.tokens[this.at].text; }
    get start() { return this.tokens[this.at].start; }
    get stop() {
      const { start, text } = this.tokens[this.at - 1];
      return start + text.length;
    }

    take() { return this.tokens[this.at++].text; }
    node(kind, text, children, start) { return { kind, text, children, start, stop: this.stop }; }
    fault(expected) {
      return new SyntaxFault(this.start, this.kind === BAD ? `${this.text} starts no token here` : `${expected} expected`);
    }
    expect(text, expected) {
      if (this.text !== text) throw this.fault(expected || text);
      this.at++;
    }
    name() {
      if (this.kind !== NAME) throw this.fault("the name of a parameter");
      return this.take();
    }

    method() {
      const start = this.start;
      const [selector, parameters] = this.pattern();
      const pragmas = this.pragmas();
      const temporaries = this.temporaries();
      pragmas.push(...this.pragmas());
      const statements = this.statements("");
      return { ...this.node("method", selector, [...pragmas, ...statements], start), parameters, temporaries };
    }

    pattern() {
      if (this.kind === KEYWORD) return this.keywords(() => this.name());
      if (![NAME, CONSTANT, BINARY].includes(this.kind)) throw this.fault("a message pattern");
      const binary = this.kind === BINARY;
      return [this.take(), binary ? [this.name()] : []];
    }

    keywords(read) {
      let selector = "";
      const found = [];
      while (this.kind === KEYWORD) {
        selector += this.take();
        found.push(read());
      }
      return [selector, found];
    }

    pragmas() {
      const found = [];
      while (this.text === "<") found.push(this.pragma());
      return found;
    }

    pragma() {
      const start = this.start;
      this.at++;
      const kind = this.kind;
      if (![NAME, KEYWORD, BINARY].includes(kind)) throw this.fault("a pragma's name");
      const allowed = this.text === "primitive:" ? [NAME] : [ARRAY, BYTES];
      const read = () => {
        if (!(this.kind in LITERALS) && !allowed.includes(this.kind)) throw this.fault("a literal");
        return this.primary();
      };
      const [selector, found] = kind === KEYWORD ? this.keywords(read)
        : [this.take(), kind === BINARY ? [read()] : []];
      this.expect(">", "> at the end of the pragma");
      return this.node("pragma", selector, found, start);
    }

    bar() { // also where a run of operators begins with it
      const token = this.tokens[this.at];
      if (token.kind !== BINARY || token.text[0] !== "|") return false;
      if (token.text === "|") this.at++;
      else this.tokens[this.at] = { kind: BINARY, text: token.text.slice(1), start: token.start + 1 };
      return true;
    }

    temporaries() {
      if (!this.bar()) return [];
      const names = [];
      while (this.kind === NAME) names.push(this.take());
      if (!this.bar()) throw this.fault("a bar | or another temporary");
      return names;
    }

    statements(closer) {
      const found = [];
      for (;;) {
        while (this.text === ".") this.at++;
        if (this.text === closer) return found;
        const start = this.start;
        if (this.text === "^") {
          this.at++;
          const value = this.expression();
          found.push(this.node("return", "^", [value], start));
        } else found.push(this.expression());
        if (this.text !== "." && this.text !== closer) throw this.fault(`a period or ${closer || "the end"}`);
      }
    }

    expression() {
      const start = this.start;
      if (this.kind === NAME && this.tokens[this.at + 1].kind === ASSIGN) {
        const variable = this.primary();
        this.at++;
        const value = this.expression();
        return this.node("assignment", ":=", [variable, value], start);
      }
      let node = this.binary();
      if (this.kind === KEYWORD) {
        const [selector, found] = this.keywords(() => this.binary());
        node = this.node("send", selector, [node, ...found], start);
      }
      return this.text === ";" ? this.cascade(node, start) : node;
    }

    minus() { // a negative number behind an operand is an operator and a number
      const token = this.tokens[this.at];
      if (token.kind !== NUMBER || token.text[0] !== "-") return false;
      this.tokens[this.at] = { kind: NUMBER, text: token.text.slice(1), start: token.start + 1 };
      return true;
    }

    binary() {
      const start = this.start;
      let node = this.unary();
      for (;;) {
        let selector = "-";
        if (this.kind === BINARY) selector = this.take();
        else if (!this.minus()) return node;
        const argument = this.unary();
        node = this.node("send", selector, [node, argument], start);
      }
    }

    unary() {
      const start = this.start;
      let node = this.primary();
      while (this.kind === NAME || this.kind === CONSTANT) node = this.node("send", this.take(), [node], start);
      return node;
    }

    cascade(node, start) {
      if (node.kind !== "send" || node.start !== start) throw this.fault("a message before the cascade's ;");
      const [receiver, ...first] = node.children;
      const messages = [{ kind: "message", text: node.text, children: first, start: receiver.stop, stop: node.stop }];
      while (this.text === ";") {
        this.at++;
        const begin = this.start;
        const [selector, found] = this.message();
        messages.push(this.node("message", selector, found, begin));
      }
      return this.node("cascade", ";", [receiver, ...messages], start);
    }

    message() {
      if (this.kind === KEYWORD) return this.keywords(() => this.binary());
      if (this.minus()) return ["-", [this.unary()]];
      if (this.kind !== NAME && this.kind !== BINARY) throw this.fault("a message after ;");
      const binary = this.kind === BINARY;
      return [this.take(), binary ? [this.unary()] : []];
    }

    primary() {
      const { kind, text, start } = this.tokens[this.at];
      if (kind === NAME) return this.node("variable", this.take(), [], start);
      if (kind in LITERALS) return this.node(LITERALS[kind], this.take(), [], start);
      const read = { [ARRAY]: "literalArray", [BYTES]: "byteArray" }[kind]
        || { "(": "parenthesis", "[": "block", "{": "brace" }[text];
      if (!read) throw this.fault("an expression");
      if (++this.depth > MAX_DEPTH) throw new SyntaxFault(start, "fewer brackets inside brackets expected");
      this.at++;
      const node = this[read](start);
      this.depth--;
      return node;
    }

    parenthesis() {
      const node = this.expression();
      this.expect(")");
      return node;
    }

    brace(start) {
      const statements = this.statements("}");
      this.expect("}");
      return this.node("brace", "{}", statements, start);
    }

    block(start) {
      const parameters = [];
      while (this.text === ":") {
        this.at++;
        parameters.push(this.name());
      }
      if (parameters.length && !this.bar() && this.text !== "]") throw this.fault("a bar | behind the parameters");
      const temporaries = this.temporaries();
      const statements = this.statements("]");
      this.expect("]");
      return { ...this.node("block", "[]", statements, start), parameters, temporaries };
    }

    literalArray(start) { // words, operators and most punctuation are symbols in here
      const found = [];
      while (this.text !== ")") {
        if (this.kind === END || this.kind === BAD) throw this.fault(")");
        if (this.text === "(") this.tokens[this.at] = { ...this.tokens[this.at], kind: ARRAY };
        const literal = this.kind in LITERALS || this.kind === ARRAY || this.kind === BYTES;
        found.push(literal ? this.primary() : this.bareSymbol());
      }
      this.at++;
      return this.node("array", "#()", found, start);
    }

    bareSymbol() {
      const start = this.start;
      WORDS.lastIndex = start;
      this.at++;
      if (WORDS.test(this.source)) while (this.start < WORDS.lastIndex) this.at++;
      return this.node("symbol", this.source.slice(start, this.stop), [], start);
    }

    byteArray(start) {
      const found = [];
      while (this.text !== "]") {
        const value = this.kind === NUMBER ? integerValue(this.text) : null;
        if (value === null || value < 0 || value > 255) throw this.fault("an integer from 0 to 255 or ]");
        found.push(this.primary());
      }
      this.at++;
      return this.node("bytes", "#[]", found, start);
    }
  }

  function integerValue(text) {
    const found = /^(-?)(?:(\d+)r)?(-?)([0-9A-Za-z]+?)(?:[edq](\d+))?$/.exec(text);
    if (!found) return null;
    const base = Number(found[2] || 10);
    const allowed = "0123456789abcdefghijklmnopqrstuvwxyz".slice(0, base);
    if (![...found[4].toLowerCase()].every((digit) => allowed.includes(digit))) return null;
    const value = parseInt(found[4], base) * base ** Number(found[5] || 0);
    return found[1] !== found[3] ? -value : value;
  }

  // {tree} or {fault: {position, expected}}
  function parse(source) {
    const parser = new Parser(source);
    try {
      return { tree: parser.method() };
    } catch (error) {
      if (error instanceof RangeError) return { fault: { position: 0, expected: "fewer brackets expected" } };
      if (!(error instanceof SyntaxFault)) throw error;
      return { fault: { position: error.position, expected: error.expected } };
    }
  }

  // How a source may end, and what would finish its last token: as smalltalk/viable.py has it.
  const ENDINGS = [[/[\p{L}\p{N}_]$/u, [":"]], [/:$/, ["=", " x"]], [/-$/, ["1"]], [/[0-9]r-?$/, ["1"]],
    [/#+$/, ["x", "("]], [/\$$/, ["x"]], [/<$/, ["x"]]];

  function endsWell(source) {
    const { fault } = parse(source);
    return !fault || fault.position >= source.length;
  }

  function openQuote(source) {
    let inside = "";
    for (let at = 0; at < source.length; at++) {
      const letter = source[at];
      if (inside) inside = letter === inside ? "" : inside;
      else if (letter === "$") at++;
      else if (letter === "'" || letter === '"') inside = letter;
    }
    return inside;
  }

  // Whether some continuation (or none) makes a source a method.
  function isViable(source) {
    if (!source.trim() || endsWell(source)) return true;
    const quote = openQuote(source);
    if (quote) return endsWell(source + quote);
    return ENDINGS.some(([ending, finishes]) => ending.test(source) && finishes.some((more) => endsWell(source + more)));
  }

  const syntax = { scan, parse, isViable };
  syntax.source = `(${define})(self);`; // for a worker
  (root.Scratchbook = root.Scratchbook || {}).smalltalkSyntax = syntax;
  if (typeof module !== "undefined") module.exports = syntax;
})(typeof window === "undefined" ? globalThis : window);
