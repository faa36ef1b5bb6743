//! Migrations, on empty databases and on ones with rows in mid-flow.

use campaignd::store::migrate::migrate;

use crate::harness::Db;

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let db = Db::empty().await;
    let first = migrate(&db.pool).await.unwrap();
    assert!(!first.already_up_to_date);
    assert_eq!(first.applied, ["1 seed", "2 ours"]);
    assert_eq!(first.adopted, None);

    let second = migrate(&db.pool).await.unwrap();
    assert!(second.already_up_to_date);
    assert!(second.applied.is_empty());
}
