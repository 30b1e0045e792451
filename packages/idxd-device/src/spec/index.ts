/** Facts of DSA and IAX: registers, tables, commands, descriptors, records. No behaviour. */
export * from './commands.js';
export * from './descriptor.js';
export * from './iax.js';
export * from './registers.js';
