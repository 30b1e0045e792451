/** Attributes by path, with show and store, directories and links. Linux, Documentation/filesystems/sysfs.rst. Paths with or without '/sys'. */
import { Errno } from '@siov/layout/uapi';
import type { OpenFile, Task } from './files.js';

export interface Attribute {
  /** The text, or -errno. Absent: the attribute cannot be read (EACCES). */
  show?(): string | number;
  /** Answers a negative errno, or any other number for success. Absent: it cannot be written (EACCES). */
  store?(text: string): number;
}
interface Directory {
  readonly children: Map<string, Node>;
}
interface Link {
  readonly target: string;
}
type Node = Directory | Link | Attribute;
/** What `walk` calls. Paths begin with '/sys'. */
export interface SysfsVisitor {
  directory(path: string): void;
  link(path: string, target: string): void;
  attribute(path: string, attribute: Attribute): void;
}
const isDirectory = (node: Node): node is Directory => 'children' in node;
const isLink = (node: Node): node is Link => 'target' in node;
/** Linux, MAXSYMLINKS. */
const MAX_LINKS = 40;

export class Sysfs {
  private readonly root: Directory = { children: new Map() };

  /** A new attribute; directories on the way are made. */
  add(path: string, attribute: Attribute): void {
    this.place(path, attribute);
  }

  /** A symbolic link; `target` is absolute, or relative to the link's directory. */
  link(path: string, target: string): void {
    this.place(path, { target });
  }

  /** An empty directory (others are made on the way). */
  directory(path: string): void {
    this.reach(partsOf(path));
  }

  /** Takes an attribute, a link, or a directory with all in it; nothing there is no error. Empty directories above stay. */
  remove(path: string): void {
    const parts = partsOf(path);
    const name = parts.pop();
    const parent = this.find(parts, 0);
    if (name !== undefined && parent && isDirectory(parent)) parent.children.delete(name);
  }

  /** The attribute's text, or -errno. */
  read(path: string): string | number {
    const node = this.find(partsOf(path), 0);
    if (!node) return -Errno.ENOENT;
    if (isDirectory(node)) return -Errno.EISDIR;
    const { show } = node as Attribute;
    return show ? show.call(node) : -Errno.EACCES;
  }

  /** The number of characters taken, or -errno. */
  write(path: string, text: string): number {
    const node = this.find(partsOf(path), 0);
    if (!node) return -Errno.ENOENT;
    if (isDirectory(node)) return -Errno.EISDIR;
    const { store } = node as Attribute;
    if (!store) return -Errno.EACCES;
    const result = store.call(node, text);
    return result < 0 ? result : text.length;
  }

  /** Names in a directory, sorted; none where there is no directory. */
  list(path: string): string[] {
    const node = this.find(partsOf(path), 0);
    return node && isDirectory(node) ? [...node.children.keys()].sort() : [];
  }

  /** All there is, directories before what is in them; links are not followed. */
  walk(visitor: SysfsVisitor, path = '/sys', { children }: Directory = this.root): void {
    visitor.directory(path);
    for (const [name, node] of children) {
      const child = `${path}/${name}`;
      if (isDirectory(node)) this.walk(visitor, child, node);
      else if (isLink(node)) visitor.link(child, node.target);
      else visitor.attribute(child, node);
    }
  }

  /** What lies at a path, links followed. */
  kind(path: string): 'directory' | 'attribute' | undefined {
    const node = this.find(partsOf(path), 0);
    return node && (isDirectory(node) ? 'directory' : 'attribute');
  }

  /** Permission bits of an attribute: 0o444 what it shows, 0o200 what it stores; 0 for anything else. */
  mode(path: string): number {
    const node = this.find(partsOf(path), 0);
    if (!node || isDirectory(node)) return 0;
    const { show, store } = node as Attribute;
    return (show ? 0o444 : 0) | (store ? 0o200 : 0);
  }

  /** Where the link at a path points, as given; undefined for anything else. */
  readLink(path: string): string | undefined {
    const parts = partsOf(path);
    const name = parts.pop() ?? '';
    const parent = this.find(parts, 0);
    const node = parent && isDirectory(parent) ? parent.children.get(name) : undefined;
    return node && isLink(node) ? node.target : undefined;
  }

  /** For open(2): the attribute as a file, or -errno. */
  open(path: string, readable: boolean, writable: boolean): OpenFile | number {
    const node = this.find(partsOf(path), 0);
    if (!node) return -Errno.ENOENT;
    if (isDirectory(node)) return -Errno.EISDIR;
    const attribute = node as Attribute;
    if ((readable && !attribute.show) || (writable && !attribute.store)) return -Errno.EACCES;
    return new AttributeFile(attribute);
  }

  private place(path: string, node: Node): void {
    const parts = partsOf(path);
    const name = parts.pop();
    if (name === undefined) throw new RangeError('path: the root is a directory');
    const { children } = this.reach(parts);
    if (children.has(name)) throw new RangeError(`path: ${path} exists`);
    children.set(name, node);
  }

  private reach(parts: readonly string[]): Directory {
    let at: Node = this.root;
    for (const [i, part] of parts.entries()) {
      if (!isDirectory(at)) break;
      let next: Node | undefined = at.children.get(part);
      if (!next) at.children.set(part, (next = { children: new Map() }));
      at = isLink(next) ? (this.find(parts.slice(0, i + 1), 0) ?? next) : next;
    }
    if (!isDirectory(at)) throw new RangeError(`path: /${parts.join('/')} is no directory`);
    return at;
  }

  private find(parts: readonly string[], links: number): Node | undefined {
    let at: Node = this.root;
    for (const [i, part] of parts.entries()) {
      const next: Node | undefined = isDirectory(at) ? at.children.get(part) : undefined;
      if (!next) return undefined;
      if (isLink(next)) {
        if (links >= MAX_LINKS) return undefined;
        const base = next.target.startsWith('/') ? '' : parts.slice(0, i).join('/') + '/';
        return this.find(partsOf([base + next.target, ...parts.slice(i + 1)].join('/')), links + 1);
      }
      at = next;
    }
    return at;
  }
}

class AttributeFile implements OpenFile {
  private readonly attribute: Attribute;
  private text: Uint8Array | undefined;
  constructor(attribute: Attribute) {
    this.attribute = attribute;
  }
  /** The text is made anew when read from the start. */
  read(task: Task, address: number, length: number, offset: number): number {
    if (offset === 0 || !this.text) {
      const shown = this.attribute.show!();
      if (typeof shown === 'number') return shown;
      this.text = Uint8Array.from(shown, (character) => character.charCodeAt(0));
    }
    const piece = this.text.subarray(offset, offset + length);
    return task.copyOut(address, piece) < 0 ? -Errno.EFAULT : piece.length;
  }
  /** At most one page. */
  write(task: Task, address: number, length: number): number {
    const bytes = new Uint8Array(Math.min(length, 4096));
    if (task.copyIn(address, bytes) < 0) return -Errno.EFAULT;
    const result = this.attribute.store!(String.fromCharCode(...bytes));
    return result < 0 ? result : bytes.length;
  }
}

/** Components of a path, '.' and '..' resolved, a leading 'sys' of an absolute path dropped. */
function partsOf(path: string): string[] {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  if (path.startsWith('/') && parts[0] === 'sys') parts.shift();
  return parts;
}
