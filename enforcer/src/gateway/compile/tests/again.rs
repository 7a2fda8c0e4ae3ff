//! What was compiled before only saves work.

use super::*;

/// What may happen between two runs.
type Change<'a> = &'a dyn Fn(&mut Lab);

#[test]
fn what_was_compiled_before_saves_work_and_changes_nothing() {
    let changes: [(&str, Change); 8] = [
        ("a connection comes", &|lab| lab.resolved().connections.push(connection("new", Some(9_000)))),
        ("an older one comes", &|lab| lab.resolved().connections.insert(0, connection("older", None))),
        ("one changes", &|lab| lab.first().valid_until_unix_ns = Some(5_000)),
        ("one selects others", &|lab| lab.first().only_namespace = Some("blog".into())),
        ("all go", &|lab| lab.resolved().connections.clear()),
        ("a destination moves", &|lab| {
            lab.destination().v4 = Some([198, 18, 0, 8].into());
        }),
        ("it goes to another gateway", &|lab| {
            lab.destination().gateways = vec!["us-1".into()];
        }),
        ("pods come, go and change", &|lab| {
            lab.registry.upsert("n", pod("b", 3));
            let other = Binding { generation: 5, labels: BTreeMap::new(), ..pod("a", 2) };
            lab.registry.upsert("n", other);
        }),
    ];
    for (what, change) in changes {
        let mut lab = Lab::new();
        lab.registry.upsert("n", Binding { v6: None, ..pod("z", 9) });
        let mut numbers = Numbers::default();
        let first = lab.fresh();
        let held = first.whole();
        lab.compile(&held, &mut numbers);
        change(&mut lab);
        let anew = lab.compile(&held, &mut numbers.clone());
        let next = lab.compile_after(&held, &mut numbers, &first);
        assert_eq!(next, anew, "{what}");
        // The difference is what the whole tables differ by.
        let (have, want) = first.difference(&next);
        assert_eq!(plan_gateway(&have, &want), plan_gateway(&held, &next.whole()), "{what}");
    }
}

#[test]
fn only_the_binding_that_changes_is_compiled_again() {
    let mut lab = Lab::new();
    lab.registry.upsert("n", Binding { v6: None, ..pod("z", 9) });
    let mut numbers = Numbers::default();
    let first = lab.compile(&GwTables::default(), &mut numbers);
    let labels = BTreeMap::from([("app".into(), "cart".into()), ("tier".into(), "web".into())]);
    lab.registry.upsert("n", Binding { generation: 5, labels, ..pod("a", 2) });
    let next = lab.compile_after(&first.whole(), &mut numbers, &first);
    let same = |uid: &str| {
        let id = ("n".to_owned(), uid.to_owned());
        Arc::ptr_eq(&first.grants[&id], &next.grants[&id])
    };
    assert_eq!((same("a"), same("z")), (false, true));
    assert_eq!(first.difference(&next), (GwTables::default(), GwTables::default()));
}
