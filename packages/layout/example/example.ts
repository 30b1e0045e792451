import { layout, oneOf, registerFile, ro, rw1c } from '@siov/layout';

const Status = layout('STATUS', 4, { 0: { error: rw1c('0'), busy: ro('1'), mode: oneOf('5:4', { off: 0, slow: 1, fast: 2 }) } });
const registers = registerFile(0x10, { status: { offset: 0x8, layout: Status, reset: [0b11] } });

registers.write(0x8, 4, 0xffff_ffff & ~0x10); // what software may: mode; what it clears by writing 1: error; the rest keeps
Status.set.mode(registers.words, registers.at('status'), Status.is.mode.fast);
console.log(registers.show()[0]);
console.log(Status.masks.reserved[0]!.toString(16)); // masks follow from the table
