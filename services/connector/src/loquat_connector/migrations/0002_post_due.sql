-- Nobody looks for heads over all numbers any more.
DROP INDEX sends_due;
