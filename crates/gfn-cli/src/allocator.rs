//! Settings of the C allocator that training needs.

/// Keeps large blocks in the heap instead of returning them to the kernel.
///
/// By default glibc maps every block above 128 KiB afresh and unmaps it when freed, so each
/// activation of each iteration is zeroed page by page: a fifth of a training step.
#[allow(unsafe_code)]
pub fn tune() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets tunables of the allocator; it is called once, before threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
