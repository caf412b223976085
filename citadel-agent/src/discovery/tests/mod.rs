mod fake_proc;
mod looks;
mod meters;
