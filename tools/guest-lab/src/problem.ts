/** Something that this machine lacks, with what to do about it: printed as it is. */
export class LabProblem extends Error {}

/** A program that did not do its work: its last lines. */
export class CommandFailed extends Error {}
