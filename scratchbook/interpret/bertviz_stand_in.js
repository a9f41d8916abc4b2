// What bertviz's views ask of d3, jQuery and require.js, and no more: so that they work offline.
// A selection keeps its groups, as in d3: the index that a function is given counts within a group.
(function () {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, parent) => {
    const tag = name.replace(/^svg:/, "");
    const inside = tag === "svg" || parent.namespaceURI === SVG;
    return inside ? document.createElementNS(SVG, tag) : document.createElement(tag);
  };

  class Selection {
    constructor(groups, parents) { this.groups = groups; this.parents = parents; }

    each(visit) {
      for (const group of this.groups) group.forEach((node, i) => node && visit(node, i, group));
      return this;
    }
    value(given, node, i, group) {
      return typeof given === "function" ? given.call(node, node.__data__, i, group) : given;
    }
    attr(name, given) {
      return this.each((node, i, group) => {
        const value = this.value(given, node, i, group);
        if (value === null) node.removeAttribute(name); else node.setAttribute(name, value);
      });
    }
    style(name, given) {
      return this.each((node, i, group) =>
        node.style.setProperty(name, this.value(given, node, i, group)));
    }
    text(given) {
      return this.each((node, i, group) => { node.textContent = this.value(given, node, i, group); });
    }
    classed(names, on) {
      return this.each((node) => names.split(" ").forEach((name) => node.classList.toggle(name, on)));
    }
    on(event, handler) {
      return this.each((node, i, group) => {
        node["on" + event] = () => handler.call(node, node.__data__, i, group);
      });
    }
    remove() { return this.each((node) => node.remove()); }
    append(name) {
      return new Selection(this.groups.map((group) => group.map((node) => {
        if (!node) return node;
        const parent = node.parent || node;  // what `enter` left: a place below a parent
        const child = parent.appendChild(make(name, parent));
        child.__data__ = node.__data__;
        return child;
      })), this.parents);
    }
    select(selector) {
      return new Selection(this.groups.map((group) => group.map((node) => {
        const found = node && node.querySelector(selector);
        if (found && "__data__" in node) found.__data__ = node.__data__;
        return found;
      })), this.parents);
    }
    selectAll(selector) {
      const groups = [], parents = [];
      this.each((node) => { groups.push([...node.querySelectorAll(selector)]); parents.push(node); });
      return new Selection(groups, parents);
    }
    data(given) {
      this.missing = this.groups.map(() => []);
      this.groups = this.groups.map((group, g) => {
        const parent = this.parents[g];
        const rows = typeof given === "function" ? given.call(parent, parent.__data__, g) : given;
        return rows.map((row, i) => {
          if (group[i]) { group[i].__data__ = row; return group[i]; }
          this.missing[g][i] = { parent, __data__: row };
          return null;
        });
      });
      return this;
    }
    enter() { return new Selection(this.missing, this.parents); }
  }

  const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2",
    "#7f7f7f", "#bcbd22", "#17becf"];
  const hsl = (colour) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
    const high = Math.max(r, g, b), low = Math.min(r, g, b), gap = high - low, l = (high + low) / 2;
    let h = 0;
    if (gap) {
      h = high === r ? (g - b) / gap + (g < b) * 6 : high === g ? (b - r) / gap + 2 : (r - g) / gap + 4;
    }
    const s = gap ? gap / (l < 0.5 ? high + low : 2 - high - low) : 0;
    return { h: h * 60, s, l, toString() { return `hsl(${this.h},${this.s * 100}%,${this.l * 100}%)`; } };
  };
  const line = () => {
    let x = (d) => d[0], y = (d) => d[1];
    const path = (points) => points.map((d, i) => `${i ? "L" : "M"}${x(d)},${y(d)}`).join("");
    path.x = (given) => { x = given; return path; };
    path.y = (given) => { y = given; return path; };
    return path;
  };
  const d3 = {
    version: "a stand-in", schemeCategory10: COLOURS, hsl, line,
    scaleOrdinal: (range) => (i) => range[i % range.length],
    select: (given) => new Selection(
      [[typeof given === "string" ? document.querySelector(given) : given]], [document]),
    selectAll: (selector) => new Selection([[...document.querySelectorAll(selector)]], [document]),
  };

  const $ = (given) => {
    const option = given === "<option />";
    const nodes = option ? [document.createElement("option")] : [...document.querySelectorAll(given)];
    const wrapped = {
      nodes,
      append(other) { nodes.forEach((node) => other.nodes.forEach((child) => node.append(child))); return wrapped; },
      val(value) { nodes.forEach((node) => { node.value = value; }); return wrapped; },
      text(value) { nodes.forEach((node) => { node.textContent = value; }); return wrapped; },
      attr(name, value) { nodes.forEach((node) => node.setAttribute(name, value)); return wrapped; },
      on(event, handler) { nodes.forEach((node) => node.addEventListener(event, handler)); return wrapped; },
      change() { nodes.forEach((node) => node.dispatchEvent(new Event("change"))); return wrapped; },
      empty() { nodes.forEach((node) => node.replaceChildren()); return wrapped; },
    };
    return wrapped;
  };

  window.require = { config() {} };
  window.requirejs = (names, run) => run($, d3);
})();
