/**
 * Register and structure layouts, declared once in tables that read like the specifications'. Facts shared by several packages have
 * entry points of their own: `@siov/layout/x86`, `@siov/layout/uapi`, `@siov/layout/events`.
 */
export type { Access, AnyLayout, Field, Get, Layout, Masks, Set } from './layout.js';
export { address, layout, oneOf, ro, rw1c } from './layout.js';
export type { RegisterFile, RegisterRow, Variants } from './registers.js';
export { registerFile, variants } from './registers.js';
export { hex, hex64, hi, join, join64, lo, wordsFrom, wordsTo } from './words.js';
