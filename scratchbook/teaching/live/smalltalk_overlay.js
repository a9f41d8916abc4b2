// What a Smalltalk method means at each of its tokens, for a text that the reader typed: what
// scratchbook/interpret/token_overlays.py tells, from the parser in smalltalk_syntax.js.
// Chapter: chapters/06d_seeing_attention.ipynb
(function define(root) {
  "use strict";

  // by the kinds of smalltalk_syntax.js, in their order
  const CLASSES = ["name", "message", "punctuation", "constant", "number", "operator", "operator", "symbol", "string",
    "punctuation", "punctuation", "string", "comment", "unknown"];
  const [NAME, BINARY, END] = [0, 6, 14];
  const ROLES = ["selector", "receiver", "argument", "assigned", "parameter", "temporary", "definition", "comment", "literal"];
  const KINDS = { send: "message", bytes: "byte array", brace: "brace array" };
  const LITERALS = ["number", "string", "symbol", "character", "constant", "array", "bytes"];
  const PSEUDO = ["self", "super", "thisContext"];
  const WORDLESS = ["return", "assignment", "block", "brace", "cascade", "array", "bytes"];
  const LABEL = 40;

  const letters = (text) => Array.from(text);
  function short(text) {
    const words = letters(text.trim().split(/\s+/).join(" "));
    return words.length <= LABEL ? words.join("") : `${words.slice(0, LABEL - 1).join("")}\u2026`;
  }

  // The tokens of a stretch, as `align` of scratchbook/interpret/overlays.py has them.
  function covering(spans, start, stop) {
    let last = spans.findIndex(([from]) => from >= (stop > start ? stop : start));
    if (last < 0) last = spans.length;
    if (stop <= start) return { first: last, last };
    let first = spans.findIndex(([, to]) => to > start);
    if (first < 0) first = spans.length;
    while (first > 0 && spans[first - 1][0] === start && spans[first - 1][1] === start) first--;
    return { first: Math.min(first, last), last };
  }

  // Every token's kinds, the smallest stretch first.
  function kindsOf(spans, stretches) {
    const found = spans.map(() => []);
    for (const { kind, start, stop } of stretches) {
      const { first, last } = covering(spans, start, stop);
      for (let token = first; token < last; token++) found[token].push([stop - start, Math.max(0, ROLES.indexOf(kind)), kind]);
    }
    return found.map((kinds) => [...new Set(kinds.sort((a, b) => a[0] - b[0] || a[1] - b[1] || (a[2] < b[2] ? -1 : 1))
      .map((each) => each[2]))]);
  }

  // The lexer leaves comments out: they stand between its tokens.
  function classesOf(source, tokens) {
    const found = [];
    let before = 0;
    for (const { kind, text, start } of tokens) {
      for (const comment of source.slice(before, start).matchAll(/"[^"]*"/g)) {
        const at = before + comment.index;
        found.push({ kind: "comment", start: at, stop: at + comment[0].length });
      }
      before = start + text.length;
      if (kind === END) break;
      found.push({ kind: kind === NAME && PSEUDO.includes(text) ? "keyword" : CLASSES[kind], start, stop: before });
    }
    return found;
  }

  // spans: [start, stop] of every token in units of JavaScript's strings. A source that is no method keeps its
  // classes and comments, as in the package.
  function overlay(source, spans) {
    const { scan, parse } = root.Scratchbook.smalltalkSyntax;
    const tokens = scan(source);
    const classes = classesOf(source, tokens);
    const comments = classes.filter((each) => each.kind === "comment");
    const { tree, fault } = parse(source);
    const read = new Reader(source, spans, tokens);
    if (tree) read.all(tree);
    const error = fault ? `this does not parse as a Smalltalk method: character ${fault.position + 1}, ${fault.expected}` : "";
    return { language: "smalltalk", error, classes: kindsOf(spans, classes).map((kinds) => kinds[0] || ""),
      roles: kindsOf(spans, [...read.roles, ...comments]), nodes: read.nodes, scopes: read.scopes, uses: read.uses, sends: read.sends };
  }

  class Reader {
    constructor(source, spans, tokens) {
      Object.assign(this, { source, spans, tokens, nodes: [], scopes: [], uses: [], sends: [], roles: [], pairs: [], places: [] });
    }

    place(start, stop, labelled = false) {
      return { ...covering(this.spans, start, stop), ...(labelled ? { text: short(this.source.slice(start, stop)) } : {}) };
    }

    all(tree) {
      this.walk(tree);
      this.readSends();
      const words = new Map(this.places.map(({ start, stop, word }) => [`${start} ${stop}`, word]));
      for (const node of this.nodes) {
        const own = words.get(`${node.start} ${node.stop}`);
        node.head = own ? this.place(...own).first : node.first;
        if (LITERALS.includes(node.was)) this.roles.push({ kind: "literal", start: node.start, stop: node.stop });
        else if (node.role === "assigned") this.roles.push({ kind: "assigned", start: node.start, stop: node.stop });
        for (const name of ["start", "stop", "was"]) delete node[name];
      }
    }

    walk(tree) {
      const waiting = [[tree, "", -1, -1]];
      let cascades = 0;
      while (waiting.length) {
        const [node, role, parent, outer] = waiting.pop();
        const { kind, children } = node;
        const at = this.nodes.length;
        const text = WORDLESS.includes(kind) ? "" : short(letters(node.text).slice(0, LABEL).join(""));
        if (kind === "cascade") children[1].start = this.wordAt(children[0].stop);
        this.nodes.push({ kind: KINDS[kind] || kind, role, text, ...this.place(node.start, node.stop), parent,
          start: node.start, stop: node.stop, was: kind });
        let scope = outer;
        if (kind === "method" || kind === "block") scope = this.addScope(node, outer);
        else if (kind === "variable" && !PSEUDO.includes(node.text)) {
          this.uses.push({ name: node.text, scope: this.scopeOf(node.text, scope), ...this.place(node.start, node.stop) });
        } else if (kind === "send") this.pairs.push([node, children[0], children.slice(1), -1]);
        else if (kind === "cascade") {
          for (const each of children.slice(1)) this.pairs.push([each, children[0], each.children, cascades]);
          cascades += 1;
        }
        children.map((child, place) => [child, roleOf(kind, place), at, scope]).reverse().forEach((each) => waiting.push(each));
      }
    }

    addScope(node, parent) {
      const method = node.kind === "method";
      const declares = this.declared(node).map(([token, what]) => {
        const stop = token.start + token.text.length;
        this.roles.push({ kind: what, start: token.start, stop });
        return { name: token.text, what, ...this.place(token.start, stop) };
      });
      if (method) {
        for (let at = 0; at < 2 * Math.max(1, node.parameters.length); at += 2) {
          const { start, text } = this.tokens[at];
          this.roles.push({ kind: "definition", start, stop: start + text.length });
        }
      }
      this.scopes.push({ kind: node.kind, name: method ? node.text : "", depth: parent < 0 ? 0 : this.scopes[parent].depth + 1,
        parent, ...this.place(node.start, node.stop), declares });
      return this.scopes.length - 1;
    }

    scopeOf(name, scope) {
      let here = scope;
      while (here >= 0 && !this.scopes[here].declares.some((each) => each.name === name)) here = this.scopes[here].parent;
      return here;
    }

    from(start) {
      return this.tokens.findIndex((token) => token.start >= start);
    }

    // The lexer's tokens of the names that a scope declares.
    declared(node) {
      const found = [];
      let at;
      if (node.kind === "method") {
        node.parameters.forEach((_, place) => found.push([this.tokens[2 * place + 1], "parameter"]));
        at = Math.max(1, 2 * node.parameters.length);
        const pragmas = new Map(node.children.filter((each) => each.kind === "pragma").map((each) => [each.start, each.stop]));
        while (pragmas.has(this.tokens[at].start)) at = this.from(pragmas.get(this.tokens[at].start));
      } else {
        at = this.from(node.start) + 1;
        for (let place = 0; place < node.parameters.length; place++, at += 2) found.push([this.tokens[at + 1], "parameter"]);
      }
      if (node.temporaries.length) {
        while (this.tokens[at].kind === BINARY) at++;
        node.temporaries.forEach((_, place) => found.push([this.tokens[at + place], "temporary"]));
      }
      return found;
    }

    wordAt(before) {
      let at = this.from(before);
      while (this.tokens[at].text === ")") at++;
      return this.tokens[at].start;
    }

    readSends() {
      const number = new Map(this.pairs.map(([send], at) => [send, at]));
      for (const [, receiver] of this.pairs) {
        if (receiver.kind === "cascade") number.set(receiver, number.get(receiver.children.at(-1)));
      }
      for (const [send, receiver, found, cascade] of this.pairs) {
        const texts = send.text.match(/[^:]+:|[^:]+/g);
        let before = send.kind === "message" ? send.start : receiver.stop;
        const words = texts.map((text, at) => {
          const start = this.wordAt(before);
          if (at < found.length) before = found[at].stop;
          return [start, start + text.length];
        });
        this.places.push({ start: send.start, stop: send.stop, word: words[0] });
        const stretch = (kind, [start, stop]) => this.roles.push({ kind, start, stop });
        words.forEach((word) => stretch("selector", word));
        stretch("receiver", [receiver.start, receiver.stop]);
        found.forEach((each) => stretch("argument", [each.start, each.stop]));
        this.sends.push({ selector: send.text, kind: !found.length ? "unary" : send.text.endsWith(":") ? "keyword" : "binary", cascade,
          receiverSend: number.has(receiver) ? number.get(receiver) : -1, words: words.map((word) => this.place(...word)),
          receiver: this.place(receiver.start, receiver.stop, true),
          arguments: found.map((each, at) => ({ word: texts[at], ...this.place(each.start, each.stop, true) })),
          ...this.place(send.start, send.stop) });
      }
    }
  }

  function roleOf(kind, place) {
    if ((kind === "send" || kind === "cascade") && place === 0) return "receiver";
    if (kind === "send" || kind === "message" || kind === "pragma") return "argument";
    return kind === "assignment" ? ["assigned", "value"][place] : "";
  }

  const api = { overlay, covering };
  api.source = `(${define})(self);`; // for a worker
  (root.Scratchbook = root.Scratchbook || {}).smalltalkOverlay = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
